"""Columns of gradients, influence, and models trained with and without a text."""

from memtax.schema.column import Column

SHORT = "the sequence has no token to score there"
_NO_PARAPHRASE = "the text has no token to predict, or no paraphrase is valid"
_NO_EXAMPLE = "one of the two examples has no token to predict"

COLUMNS = (
    Column(
        "counterfactual_memorization",
        "float64",
        "nats/token",
        "mean log-likelihood under models trained on the text, minus that under models that were not",
        "fewer than 2 models on a side, or no token to score",
        role="score",
    ),
    Column("counterfactual_low", "float64", "nats/token", "lower end of its 95% interval", "as above", role="score"),
    Column("counterfactual_high", "float64", "nats/token", "upper end of its 95% interval", "as above", role="score"),
    Column("model_scores", "list<float64>", "nats/token", "mean log-likelihood of the text under each model", role="score"),
    Column("model_included", "list<bool>", "boolean", "whether each model was trained on the text", role="score"),
    Column(
        "gradient_alignment",
        "float32",
        "cosine",
        "mean over valid paraphrases, and over tensors, of the cosine between the gradients at the text and at the paraphrase",
        _NO_PARAPHRASE,
        role="score",
    ),
    Column(
        "gradient_inner_product",
        "float32",
        "nats^2 / parameter^2",
        "mean over valid paraphrases of the inner product of the gradients at the text and at the paraphrase",
        _NO_PARAPHRASE,
        role="score",
    ),
    Column(
        "paraphrase_alignments",
        "list<float32>",
        "cosine",
        "gradient_alignment of each paraphrase; null if it is not valid",
        role="score",
    ),
    Column(
        "paraphrase_inner_products",
        "list<float32>",
        "nats^2 / parameter^2",
        "gradient_inner_product of each paraphrase; null if it is not valid",
        role="score",
    ),
    Column("paraphrases_used", "int32", "paraphrases", "valid paraphrases that the means are over", role="score"),
    Column(
        "gradient_norm", "float32", "nats / parameter", "norm of the gradient of the mean loss at the text", SHORT, role="score"
    ),
    Column("is_cut", "bool", "boolean", "the text or a paraphrase was longer than the model takes, and was cut", role="score"),
    Column(
        "gradient_match", "float32", "nats^2", "influence without curvature; negative is helpful", _NO_EXAMPLE, role="score"
    ),
    Column("datainf", "float32", "nats^2", "influence by DataInf; negative is helpful", _NO_EXAMPLE, role="score"),
    Column("lissa", "float32", "nats^2", "influence by LiSSA; negative is helpful", _NO_EXAMPLE, role="score"),
    Column(
        "exact",
        "float32",
        "nats^2",
        "influence by the exact inverse of the damped Hessian; negative is helpful",
        _NO_EXAMPLE,
        role="score",
    ),
    Column("repsim", "float32", "cosine", "of the last hidden states; large is alike", _NO_EXAMPLE, role="score"),
)
