"""Every column of texts is masked where a run masks personal data, those of attached tables too."""

import pyarrow as pa

from memtax import schema
from memtax.hub.folder import Config
from memtax.pipeline.personal import PersonalData, mask_attached, masked

CLEAR = "write to jo.berg@kontor-nord.co.uk, 4111 1111 1111 1111"


def test_no_column_of_texts_is_left_in_clear():
    made = {"token_texts", "paraphrase_reasons", "text_kind", "domain", "model", "checkpoint"}
    columns = {name: str(column.dtype) for name, column in schema.COLUMNS.items() if "string" in str(column.dtype)}
    texts = {name: [CLEAR] if kind == "string" else [[CLEAR, None]] for name, kind in columns.items() if name not in made}
    assert {"text", "document", "prompt_text", "paraphrases", "neighbour_texts"} <= texts.keys()
    table = pa.table({"sequence_id": [0], **texts})
    from memtax import privacy

    hidden = PersonalData({0: privacy.cover(CLEAR)}, {})
    for found in (masked(table, hidden), mask_attached(Config("x", "A row.", {"train": table})).splits["train"]):
        assert found.num_rows == 1
        assert "kontor" not in str(found.to_pylist())
        assert "1111" not in str(found.to_pylist())
