"""What `audit --clean` keeps of a training set."""

import json

from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from helpers.small import word_tokenizer
from memtax.corpus.sequences import load_sequences, window_rows
from memtax.corpus.sources import Source
from memtax.pipeline.audit_clean import _kept


@given(
    st.lists(st.lists(st.sampled_from([b"a", b"b", b"c", b"d"]), max_size=3), max_size=12),
    st.sets(st.sampled_from([b"a", b"b"])),
)
def test_nothing_worrying_stays_and_nothing_else_is_lost(rows, bad):
    contents = [b"".join(row).decode() for row in rows]
    kept, counts = _kept(contents, {at: row for at, row in enumerate(rows) if row}, bad)
    assert kept == sorted(set(kept))
    assert not {window for at in kept for window in rows[at]} & bad
    clean = [at for at, row in enumerate(rows) if not set(row) & bad]
    # Every content and every passage of a row without worrying ones is still there, and no row is there twice.
    assert {window for at in kept for window in rows[at]} == {window for at in clean for window in rows[at]}
    assert len({contents[at] for at in kept}) == len(kept)
    for at in clean:
        assert rows[at] or contents[at] in {contents[each] for each in kept}
    assert counts["rows"] == len(rows) == counts["worrying"] + counts["copies"] + counts["kept"]
    assert counts["worrying"] == len(rows) - len(clean)
    assert counts["short"] == sum(not rows[at] for at in kept)


def test_windows_know_their_rows(tmp_path):
    texts = ["w1 w2 w3 w4 w5", "w1", "w1 w2 w3 w4", "w2 w2 w2 w2 w2 w2 w2"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    source, tokenizer = Source.parse(str(tmp_path / "rows.jsonl")), word_tokenizer()
    # Without names, the documents of the windows are the numbers of their rows.
    named = load_sequences(source, window=2, tokenizer=tokenizer).dataset["document"]
    assert [f"row {row}" for row in window_rows(source, window=2, tokenizer=tokenizer)] == list(named)
    # Of a column of tokens, one window of each row that is long enough.
    Dataset.from_dict({"tokens": [[1, 2, 3, 4], [1], [5, 6]]}).to_parquet(tmp_path / "tokens.parquet")
    assert window_rows(Source.parse(str(tmp_path / "tokens.parquet")), window=2).tolist() == [0, 2]
