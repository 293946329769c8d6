"""Columns that identify rows, and their tokens and texts."""

from memtax.schema.column import Column

COLUMNS = (
    Column(
        "sequence_id",
        "int64",
        "id",
        "identifies the sequence; unique within a dataset",
        role="key",
        published=("index", "Index"),
    ),
    Column("text_id", "int64", "id", "identifies the long text that a window was cut from", role="key"),
    Column("window_start", "int64", "token", "place of the window's first token in its text, from 0", role="key"),
    Column(
        "document", "string", "name", "the document the sequence was cut from (`row N`: unnamed)", "not recorded", role="key"
    ),
    Column("is_member", "bool", "boolean", "whether the model was trained on the sequence", role="key"),
    Column("domain", "string", "name", "the kind of text; figures are given for each", role="key"),
    Column(
        "chunk_start",
        "int32",
        "characters",
        "where the chunk of the text begins that is meant",
        "the whole text is meant",
        role="key",
    ),
    Column("chunk_end", "int32", "characters", "where it ends", "the whole text is meant", role="key"),
    Column("token_id", "int64", "token id", "a token of the vocabulary", role="key", published=("TokenID",)),
    Column("rank", "int32", "place", "place among the sequence's neighbours, 1 is the nearest", role="key"),
    Column("neighbour_id", "int64", "id", "sequence_id of the neighbour in the corpus sample", role="key"),
    Column("train_id", "int64", "id", "sequence_id of the training example", role="key"),
    Column("test_id", "int64", "id", "sequence_id of the test example", role="key"),
    Column("model", "string", "name", "the model that was scored, whatever its checkpoint", role="key"),
    Column("parameters", "int64", "parameters", "size of the model", "not known for this model", role="key", scale="log"),
    Column("checkpoint", "string", "name", "the checkpoint or model that was scored", role="key"),
    Column("step", "int64", "steps", "optimizer steps taken at the checkpoint", "not known for this model", role="key"),
    Column(
        "tokens", "list<int32>", "token ids", "the sequence, as the model was trained on it", role="text", published=("Tokens",)
    ),
    Column(
        "prompt_tokens",
        "int32",
        "tokens",
        "the conversation before the answer, which is the prompt",
        "the sequence is not from a conversation",
        role="text",
    ),
    Column("scored_tokens", "list<bool>", "boolean", "whether the assistant wrote each token", role="text"),
    Column("text", "string", "text", "the tokens decoded", "the tokenizer is not known", role="text"),
    Column("token_texts", "list<string>", "text", "the tokens decoded one by one", "the tokenizer is not known", role="text"),
    Column("prompt_text", "string", "text", "the prompt's tokens decoded", "the tokenizer is not known", role="text"),
    Column(
        "neighbour_texts",
        "list<string>",
        "text",
        "the text with some words replaced, as often as it was perturbed",
        role="text",
    ),
    Column("paraphrases", "list<string>", "text", "paraphrases of the text; one that failed is null", role="text"),
    Column("paraphrase_reasons", "list<string>", "reason", "why each paraphrase failed; null where it is valid", role="text"),
    Column(
        "paraphrase_edits",
        "list<float32>",
        "share",
        "characters edited between text and output; null where there is no output",
        role="text",
    ),
)
