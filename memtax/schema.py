"""The columns: every table memtax reads or writes uses these names, types, units and meanings of null.

`COLUMNS` is the only list. Cards, feature declarations, the report and input checks are derived from it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from memtax.errors import MemtaxError

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

CATEGORIES = ("recitation", "reconstruction", "recollection")
"""The taxonomy's classes, in the order of its rules (Prashanth et al. 2024, section 4)."""


@dataclass(frozen=True)
class Column:
    """One column: its Arrow type, unit, meaning, and what a null in it says (`never`: nulls are not allowed)."""

    name: str
    dtype: str
    unit: str
    meaning: str
    null: str = "never"


_NO_TEXT = "the text is missing"
_EMPTY_TEXT = "the text is missing or empty"
_NO_KIND = "the text is missing or empty, or the classifier comes without thresholds (evaluation.json)"
_NO_TOKENS = "a token of the sequence has no count in the table"
_SHORT = "the sequence has no token to score there"
_NO_PARAPHRASE = "the text has no token to predict, or no paraphrase is valid"
_NO_EXAMPLE = "one of the two examples has no token to predict"
_UNCOUNTED = "the sequence is not in the table of counts"

_ALL = (
    # keys
    Column("sequence_id", "int64", "id", "identifies the sequence; unique within a dataset"),
    Column("tokens", "list<int32>", "token ids", "the sequence, as the model was trained on it"),
    Column("text", "string", "text", "the tokens decoded", "the tokenizer is not known"),
    Column("neighbour_texts", "list<string>", "text", "the text with some words replaced, as often as it was perturbed"),
    Column("token_texts", "list<string>", "text", "the tokens decoded one by one", "the tokenizer is not known"),
    Column("text_id", "int64", "id", "identifies the long text that a window was cut from"),
    Column("window_start", "int64", "token", "place of the window's first token in its text, from 0"),
    Column("document", "string", "name", "the document the sequence was cut from (`row N`: unnamed)", "not recorded"),
    Column("is_member", "bool", "boolean", "whether the model was trained on the sequence"),
    Column("domain", "string", "name", "the kind of text; figures are given for each"),
    Column("chunk_start", "int32", "characters", "where the chunk of the text begins that is meant", "the whole text is meant"),
    Column("chunk_end", "int32", "characters", "where it ends", "the whole text is meant"),
    # corpus statistics
    Column(
        "sequence_duplicates",
        "int64",
        "occurrences",
        "how often the continuation occurs in the corpus, at any offset inside a training sequence, its own place included",
        _UNCOUNTED,
    ),
    Column(
        "sequence_near_duplicates",
        "int64",
        "occurrences",
        "places of the corpus that differ from the continuation in at most the stated number of tokens, exact ones included",
        _UNCOUNTED,
    ),
    Column("token_id", "int64", "token id", "a token of the vocabulary"),
    Column("token_frequency", "int64", "occurrences", "how often the token occurs in the corpus"),
    Column("max_frequency", "int64", "occurrences", "largest corpus frequency among the sequence's tokens", _NO_TOKENS),
    Column("avg_frequency", "float64", "occurrences", "mean corpus frequency of the sequence's tokens", _NO_TOKENS),
    Column("min_frequency", "int64", "occurrences", "smallest corpus frequency among the sequence's tokens", _NO_TOKENS),
    Column("median_frequency", "float64", "occurrences", "median corpus frequency of the tokens", _NO_TOKENS),
    Column("p25_frequency", "float64", "occurrences", "25th percentile (interpolated) of the corpus frequencies", _NO_TOKENS),
    Column("p75_frequency", "float64", "occurrences", "75th percentile (interpolated) of the corpus frequencies", _NO_TOKENS),
    # intrinsic properties
    Column("is_incrementing", "bool", "boolean", "the text continues a counter or another progression", _NO_TEXT),
    Column("is_repeating", "bool", "boolean", "the text repeats a pattern", _NO_TEXT),
    Column("template_period", "int32", "items", "period of the template found", "no template was found, or no text"),
    Column(
        "huffman_coding_length", "float64", "bits/character", "mean Huffman code length of the text's characters", _EMPTY_TEXT
    ),
    Column(
        "shannon_coding_length", "float64", "bits/character", "mean Shannon code length of the text's characters", _EMPTY_TEXT
    ),
    Column("huffman_token_coding_length", "float64", "bits/token", "mean Huffman code length of the tokens", "no tokens"),
    Column("embedding", "list<float32>", "vector", "embedding of the text, of length one", _NO_TEXT),
    Column("prompt_text", "string", "text", "the prompt's tokens decoded", "the tokenizer is not known"),
    Column(
        "semantic_matches_0_8",
        "int64",
        "sequences",
        "other sequences of the corpus sample at cosine >= 0.8 (snowclones)",
        _NO_TEXT,
    ),
    Column("semantic_matches_0_9", "int64", "sequences", "other sequences of the corpus sample at cosine >= 0.9", _NO_TEXT),
    Column(
        "textual_matches_0_8",
        "int64",
        "sequences",
        "among the semantic matches at 0.8, prompts at 0 < Levenshtein distance < 20 characters (templates)",
        _NO_TEXT,
    ),
    Column(
        "textual_matches_0_9",
        "int64",
        "sequences",
        "among the semantic matches at 0.9, prompts at 0 < Levenshtein distance < 20 characters",
        _NO_TEXT,
    ),
    Column("nl_score", "float32", "probability", "that the text is natural language and not code", _EMPTY_TEXT),
    Column(
        "text_kind",
        "string",
        "kind",
        "natural language, code or uncertain, by the classifier's thresholds on nl_score",
        _NO_KIND,
    ),
    # neighbours, one row a pair
    Column("rank", "int32", "place", "place among the sequence's neighbours, 1 is the nearest"),
    Column("neighbour_id", "int64", "id", "sequence_id of the neighbour in the corpus sample"),
    Column("cosine", "float64", "cosine", "cosine similarity of the two texts' embeddings"),
    # scores of a model
    Column(
        "prompt_perplexity", "float32", "perplexity", "exp of the mean loss over the prompt's tokens after the first", _SHORT
    ),
    Column("continuation_perplexity", "float32", "perplexity", "exp of the mean loss over the continuation's tokens", _SHORT),
    Column("sequence_perplexity", "float32", "perplexity", "exp of the mean loss over all scored tokens", _SHORT),
    Column("is_memorized", "bool", "boolean", "greedy decoding from the prompt gives the continuation exactly", _SHORT),
    Column("match_length", "int32", "tokens", "leading continuation tokens that greedy decoding gets right", _SHORT),
    Column("exact_memorization", "float32", "share", "continuation tokens that are the argmax under teacher forcing", _SHORT),
    Column(
        "extraction_strength",
        "float32",
        "share",
        "longest suffix of the continuation that is all argmax, over its length",
        _SHORT,
    ),
    Column("continuation_logprob", "float32", "nats", "log-probability of the continuation given the prompt", _SHORT),
    Column("memorization_score", "float32", "share", "generated tokens equal to the true ones", "not generated"),
    Column("token_logprobs", "list<float32>", "nats", "log-probability of each token after the first, given those before it"),
    Column("token_means", "list<float32>", "nats", "mean over the vocabulary of log p under p, for each token after the first"),
    Column(
        "token_variances",
        "list<float32>",
        "nats^2",
        "variance over the vocabulary of log p under p, for each token after the first",
    ),
    Column(
        "token_ranks", "list<int32>", "tokens", "tokens of the vocabulary that the model puts before each token after the first"
    ),
    Column("decoding_logprob", "float32", "nats", "log-probability that the sampling scheme draws the continuation", _SHORT),
    Column(
        "extraction_queries",
        "float64",
        "samples",
        "samples after which the continuation was drawn with the given probability",
        "the sequence has no token to score there, or the sampling scheme excludes a token",
    ),
    Column(
        "attention_entropy",
        "list<float32>",
        "nats",
        "mean entropy of the attention weights, layer by layer, head by head",
        _SHORT,
    ),
    Column("attention_gini", "list<float32>", "share", "mean Gini coefficient of the attention weights, likewise", _SHORT),
    Column(
        "is_memorized_by_reference",
        "bool",
        "boolean",
        "is_memorized under a model that was not trained on the sequence",
        _SHORT,
    ),
    Column(
        "attack_score",
        "float64",
        "score",
        "membership score; larger means more likely a member",
        "no token to score, or something that the attack needs is missing",
    ),
    # paraphrases
    Column("paraphrases", "list<string>", "text", "paraphrases of the text; one that failed is null"),
    Column("paraphrase_reasons", "list<string>", "reason", "why each paraphrase failed; null where it is valid"),
    Column(
        "paraphrase_edits", "list<float32>", "share", "characters edited between text and output; null where there is no output"
    ),
    # models trained with and without the text
    Column(
        "counterfactual_memorization",
        "float64",
        "nats/token",
        "mean log-likelihood under models trained on the text, minus that under models that were not",
        "fewer than 2 models on a side, or no token to score",
    ),
    Column("counterfactual_low", "float64", "nats/token", "lower end of its 95% interval", "as above"),
    Column("counterfactual_high", "float64", "nats/token", "upper end of its 95% interval", "as above"),
    Column("model_scores", "list<float64>", "nats/token", "mean log-likelihood of the text under each model"),
    Column("model_included", "list<bool>", "boolean", "whether each model was trained on the text"),
    # gradients
    Column(
        "gradient_alignment",
        "float32",
        "cosine",
        "mean over valid paraphrases, and over tensors, of the cosine between the gradients at the text and at the paraphrase",
        _NO_PARAPHRASE,
    ),
    Column(
        "gradient_inner_product",
        "float32",
        "nats^2 / parameter^2",
        "mean over valid paraphrases of the inner product of the gradients at the text and at the paraphrase",
        _NO_PARAPHRASE,
    ),
    Column(
        "paraphrase_alignments", "list<float32>", "cosine", "gradient_alignment of each paraphrase; null if it is not valid"
    ),
    Column(
        "paraphrase_inner_products",
        "list<float32>",
        "nats^2 / parameter^2",
        "gradient_inner_product of each paraphrase; null if it is not valid",
    ),
    Column("paraphrases_used", "int32", "paraphrases", "valid paraphrases that the means are over"),
    Column("gradient_norm", "float32", "nats / parameter", "norm of the gradient of the mean loss at the text", _SHORT),
    Column("is_cut", "bool", "boolean", "the text or a paraphrase was longer than the model takes, and was cut"),
    # influence
    Column("train_id", "int64", "id", "sequence_id of the training example"),
    Column("test_id", "int64", "id", "sequence_id of the test example"),
    Column("gradient_match", "float32", "nats^2", "influence without curvature; negative is helpful", _NO_EXAMPLE),
    Column("datainf", "float32", "nats^2", "influence by DataInf; negative is helpful", _NO_EXAMPLE),
    Column("lissa", "float32", "nats^2", "influence by LiSSA; negative is helpful", _NO_EXAMPLE),
    Column(
        "exact", "float32", "nats^2", "influence by the exact inverse of the damped Hessian; negative is helpful", _NO_EXAMPLE
    ),
    Column("repsim", "float32", "cosine", "of the last hidden states; large is alike", _NO_EXAMPLE),
    # labels
    Column("taxonomy", "class", "category", "why a memorized sequence would be memorized", "an input of its rule is null"),
    Column(
        "memorized_probability", "float32", "probability", "the predictor's probability of is_memorized", "a factor is null"
    ),
    # checkpoints of a training run
    Column("model", "string", "name", "the model that was scored, whatever its checkpoint"),
    Column("parameters", "int64", "parameters", "size of the model", "not known for this model"),
    Column("checkpoint", "string", "name", "the checkpoint or model that was scored"),
    Column("step", "int64", "steps", "optimizer steps taken at the checkpoint", "not known for this model"),
)
COLUMNS: dict[str, Column] = {column.name: column for column in _ALL}

PUBLISHED: dict[str, str] = {
    "index": "sequence_id",
    "Index": "sequence_id",
    "Tokens": "tokens",
    "counts": "sequence_duplicates",
    "TokenID": "token_id",
    "Frequency": "token_frequency",
    "0_8_snowclones": "semantic_matches_0_8",
    "0_9_snowclones": "semantic_matches_0_9",
    "0_8_templates": "textual_matches_0_8",
    "0_9_templates": "textual_matches_0_9",
    "nl_scores": "nl_score",
    "generation_perplexity": "continuation_perplexity",
    "huffman_coding_length": "shannon_coding_length",
}
"""Names in the published datasets to ours, where they differ. Some need a conversion as well: see
`memtax.published.sequences`."""


def column(name: str) -> Column:
    """The declared column.

    `attack_` before the name of an attack: its score. `_50_100` after the name of a score: for a prompt of 50 and a
    continuation of 100 tokens.

    Raises:
        MemtaxError: no such column is declared.
    """
    if name not in COLUMNS:
        if name.startswith("attack_"):
            base = COLUMNS["attack_score"]
            return replace(base, name=name, meaning=f"{base.meaning}: {name.removeprefix('attack_')}")
        windowed = re.fullmatch(r"(.+)_(\d+)_(\d+)", name)
        if windowed and windowed[1] in COLUMNS and COLUMNS[windowed[1]].null == _SHORT:
            base = COLUMNS[windowed[1]]
            of = f"of a prompt of {windowed[2]} and a continuation of {windowed[3]} tokens"
            return replace(base, name=name, meaning=f"{base.meaning}, {of}")
        sized = re.fullmatch(r"memorization_score_(\d+(?:\.\d+)?[mb])", name)
        if sized:
            return replace(COLUMNS["memorization_score"], name=name, meaning=f"memorization_score of the model of {sized[1]}")
        raise MemtaxError(f"unknown column {name!r}; memtax.schema.COLUMNS lists the declared ones")
    return COLUMNS[name]


def arrow_schema(names: Iterable[str]) -> "pa.Schema":
    """The Arrow schema of a table with these columns."""
    import pyarrow as pa

    types = {
        "int64": pa.int64(),
        "int32": pa.int32(),
        "float64": pa.float64(),
        "float32": pa.float32(),
        "bool": pa.bool_(),
        "string": pa.string(),
        "class": pa.int64(),
        "list<int32>": pa.list_(pa.int32()),
        "list<float32>": pa.list_(pa.float32()),
        "list<float64>": pa.list_(pa.float64()),
        "list<bool>": pa.list_(pa.bool_()),
        "list<string>": pa.list_(pa.string()),
    }
    return pa.schema([pa.field(name, types[column(name).dtype]) for name in names])


def features(names: Iterable[str]) -> "datasets.Features":
    """The `datasets.Features` of a table with these columns; `taxonomy` is a ClassLabel."""
    import datasets

    def feature(dtype: str) -> Any:
        if dtype == "class":
            return datasets.ClassLabel(names=list(CATEGORIES))
        if dtype.startswith("list<"):
            return datasets.List(datasets.Value(dtype[5:-1]))
        return datasets.Value(dtype)

    return datasets.Features({name: feature(column(name).dtype) for name in names})


def require(present: Iterable[str], required: Iterable[str], what: str) -> None:
    """Check that `required` columns are among `present`.

    Raises:
        MemtaxError: a column is missing; the message suggests the nearest name present.
    """
    import difflib

    present = list(present)
    for name in required:
        if name not in present:
            near = difflib.get_close_matches(name, present, 1) or [p for p in present if PUBLISHED.get(p) == name][:1]
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise MemtaxError(f"{what} has no column {name!r}{hint}; it has: {', '.join(present) or 'no columns'}")


def validate(table: "pa.Table", names: Iterable[str], what: str = "the table") -> "pa.Table":
    """Select the columns and cast them to their declared types; nothing is lost quietly.

    Raises:
        MemtaxError: a column is missing, does not cast safely, or holds nulls where the schema allows none.
    """
    import pyarrow as pa

    names = list(names)
    require(table.column_names, names, what)
    schema = arrow_schema(names)
    columns = []
    for field in schema:
        values = table.column(field.name)
        try:
            values = values.cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise MemtaxError(
                f"column {field.name!r} of {what} is {values.type}, not {field.type}: {str(error).splitlines()[0]}"
            ) from error
        if values.null_count and column(field.name).null == "never":
            row = values.is_null().index(pa.scalar(True)).as_py()
            raise MemtaxError(
                f"column {field.name!r} of {what} is null in row {row}; drop or fill {values.null_count} such rows"
            )
        columns.append(values)
    return pa.table(columns, schema=schema)


def is_declared(name: str) -> bool:
    """Whether `column` knows the name."""
    try:
        column(name)
    except MemtaxError:
        return False
    return True


def described(field: "pa.Field") -> Column:
    """The declared column of a field's name; for a column of the user's, its type."""
    if is_declared(field.name):
        return column(field.name)
    return Column(field.name, str(field.type), "-", "a column of the input", "as in the input")


def checked(table: "pa.Table", what: str = "the table") -> "pa.Table":
    """The table with declared columns cast and checked as `validate` does, and with `datasets.Features` in its metadata.

    Raises:
        MemtaxError: a declared column has another type, or nulls where there may be none.
    """
    import datasets
    import pyarrow as pa

    known = [name for name in table.column_names if is_declared(name)]
    cast = validate(table, known, what)
    whole = pa.table({name: (cast if name in known else table).column(name) for name in table.column_names})
    own = datasets.Features.from_arrow_schema(table.drop_columns(known).schema.remove_metadata())
    ours = features(known)
    return whole.cast(datasets.Features({n: ours[n] if n in known else own[n] for n in table.column_names}).arrow_schema)


def rename_published(names: Iterable[str]) -> Mapping[str, str]:
    """The renaming that turns published column names into ours, for those among `names` that differ."""
    return {name: PUBLISHED[name] for name in names if name in PUBLISHED}
