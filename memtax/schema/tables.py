"""Columns of tables that are not of sequences: figures, rules and changes, which verbs write beside their main tables.

The names are short (`value`, `low`, `model`) and mean something in their table only, so they are declared by table and not in
`memtax.schema.COLUMNS`: a column of that name in a user's data is not checked against them.
"""

from memtax.schema.column import Column

_ESTIMATE = (
    Column("metric", "string", "name", "the metric"),
    Column("value", "float64", "as the metric", "the estimate", "too few rows, or undefined on them"),
    Column("low", "float64", "as the metric", "lower end of its 95% interval", "no interval can be given"),
    Column("high", "float64", "as the metric", "upper end of its 95% interval", "no interval can be given"),
)
_TEXT = Column("text", "string", "text", "the text, with personal data masked unless the run shows it", "not recorded")
_SEQUENCE = Column("sequence_id", "int64", "id", "identifies the sequence in the run", role="key")


def _by_name(*columns: Column) -> dict[str, Column]:
    return {column.name: column for column in columns}


TABLES: dict[str, dict[str, Column]] = {
    "evaluation": _by_name(
        Column(
            "model", "string", "name", "the model of the predictor: taxonomic, or the baseline for all sequences", role="key"
        ),
        Column("group", "string", "name", "the test rows: aggregate for all, or a category", role="key"),
        *_ESTIMATE,
    ),
    "metrics": _by_name(
        Column("domain", "string", "name", "the kind of text", role="key"),
        Column("attack", "string", "name", "the attack; blind: a classifier that sees the texts and no model", role="key"),
        *_ESTIMATE,
        Column("members", "int64", "texts", "members with a score"),
        Column("nonmembers", "int64", "texts", "non-members with a score"),
        Column("without_score", "int64", "texts", "texts that the attack gives no score"),
        Column(
            "shows_membership", "bool", "boolean", "whether the attack shows membership beyond the blind baseline", "unknown"
        ),
    ),
    "partitions": _by_name(
        Column("partition", "int64", "number", "number of the partition in the order of the search", role="key"),
        *(
            Column(f"{name}_{number}", dtype, unit, meaning.format(which))
            for number, which in ((1, "first"), (2, "second"))
            for name, dtype, unit, meaning in (
                ("factor", "string", "name", "the factor that rows are split on {}"),
                ("quantile", "float64", "share", "quantile of the factor that rows are split on {}"),
                ("threshold", "float64", "as the factor", "the threshold on the factor that rows are split on {}"),
            )
        ),
        *(
            Column(f"rows_{group}", "int64", "rows", f"training rows of group {group.upper()}, whose model is fitted on them")
            for group in "abc"
        ),
        Column("log_loss", "float64", "nats/row", "mean log loss on validation rows; smaller is better"),
        Column("brier", "float64", "score", "mean Brier score on validation rows; smaller is better"),
        Column("roc_auc", "float64", "share", "area under the ROC curve on validation rows", "a class has too few rows"),
        Column("pr_auc", "float64", "share", "area under the precision-recall curve on validation rows", "likewise"),
        Column("silent", "string", "reasons", "groups without a model, for which the baseline answers", "every group has one"),
    ),
    "changes": _by_name(
        _SEQUENCE,
        Column("sequence_id_after", "int64", "id", "its id in the second run", role="key"),
        Column("change", "string", "name", "whether the sequence became memorized or is no longer"),
        Column("taxonomy_before", "string", "category", "its category in the first run", "an input of the rule is null"),
        Column("taxonomy_after", "string", "category", "its category in the second run", "an input of the rule is null"),
        _TEXT,
    ),
    "groups": _by_name(
        Column("category", "string", "category", "the category; all: every sequence that both runs have", role="key"),
        Column("sequences", "int64", "sequences", "sequences of the category"),
        Column("unit", "string", "name", "what intervals are over", "no interval can be given"),
        Column("units", "int64", "units", "how many of them there are", "no interval can be given"),
        Column("newly", "int64", "sequences", "memorized in the second run and not in the first"),
        Column("forgotten", "int64", "sequences", "memorized in the first run and not in the second"),
        Column("p", "float64", "probability", "p-value of no difference", "too few units"),
        *(
            Column(f"{name}_{end}", "float64", "share", f"{what}{of}", "no sequences, or too few units for an interval")
            for name, what in (
                ("first", "share that is memorized in the first run"),
                ("second", "share that is memorized in the second run"),
                ("difference", "second share less the first"),
            )
            for end, of in (("value", ""), ("low", ": lower end of its 95% interval"), ("high", ": upper end of its interval"))
        ),
    ),
    "kinds": _by_name(
        Column("kind", "string", "name", "the kind of memorized sequence", role="key"),
        Column("memorized", "int64", "sequences", "memorized sequences of the kind"),
        Column("sequences", "int64", "sequences", "sequences of the kind"),
        Column("distinct", "int64", "texts", "distinct texts among the memorized ones", "not counted"),
        Column("rate", "float64", "share", "share that is memorized", "there are none of the kind"),
        Column("low", "float64", "share", "lower end of its 95% interval", "no interval can be given"),
        Column("high", "float64", "share", "upper end of its 95% interval", "no interval can be given"),
    ),
    "unlearning": _by_name(
        Column("state", "string", "name", "the model: as given, relearned, or with weights in 4 bits", role="key"),
        Column("set", "string", "name", "the sequences: of the data to forget, each half, to retain, or held out", role="key"),
        Column("memorized", "int64", "sequences", "memorized sequences of the set"),
        Column("sequences", "int64", "sequences", "sequences of the set"),
        Column("rate", "float64", "share", "share that is memorized", "there are none"),
        Column("low", "float64", "share", "lower end of its 95% interval", "no interval can be given"),
        Column("high", "float64", "share", "upper end of its 95% interval", "no interval can be given"),
        Column("came_back", "int64", "sequences", "memorized in this state and not as given", "the state is as given"),
        Column(
            "auroc", "float64", "share", "AUROC of log-probabilities against held-out sequences", "no interval can be given"
        ),
        Column("auroc_low", "float64", "share", "lower end of its 95% interval", "no interval can be given"),
        Column("auroc_high", "float64", "share", "upper end of its 95% interval", "no interval can be given"),
    ),
    "worrying": _by_name(
        _SEQUENCE,
        Column("category", "string", "category", "why it would be memorized", "not known"),
        Column("duplicates", "int64", "occurrences", "how often the continuation occurs in the corpus", "not counted"),
        Column("windows", "int64", "sequences", "memorized windows of the document that this row stands for", "not known"),
        Column("personal_data", "list<string>", "kinds", "kinds of personal data found in the text", "not searched"),
        _TEXT,
    ),
    "top": _by_name(
        Column("method", "string", "name", "the method of influence", role="key"),
        Column("rank", "int64", "place", "place among the training examples, 1 matters most", role="key"),
        Column("influence", "float64", "as the method", "the influence of the training on the test example"),
        Column("train_text", "string", "text", "the training example, with personal data masked unless shown", "not recorded"),
        Column("test_text", "string", "text", "the test example, with personal data masked unless shown", "not recorded"),
    ),
}
"""Table name to its columns that `memtax.schema.COLUMNS` does not explain."""
