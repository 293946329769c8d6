"""Personal data never stands in a masked text, wherever the text is cut; what is counted is what is valid in the document."""

import itertools
import random
import re
import sys
import unicodedata
from pathlib import Path

import pytest

from memtax import privacy
from memtax.corpus.sources import Source
from memtax.privacy import Finding

pytest.importorskip("phonenumbers", reason="the extra pii is not installed")
pytest.importorskip("stdnum", reason="the extra pii is not installed")
sys.path.insert(0, str(Path(__file__).parent))
from helpers.personal_data import FORMS, MAKERS, records

SEPARATORS = " \t\r\n-./()"


def longest_run(text):
    """Most digits in a row, whatever spaces and simple punctuation stand between them: a loop over characters."""
    longest = run = 0
    for character in re.sub(r"\[[a-zA-Z ]+, [0-9]+ characters\]", "x", text):
        if unicodedata.decimal(character, None) is not None:
            run += 1
            longest = max(longest, run)
        elif character not in SEPARATORS:
            run = 0
    return longest


def test_no_cut_of_a_document_shows_a_number_or_an_address():
    for kind, form, value, document in records(96, seed=3):
        hidden = privacy.cover(document, privacy.find(document))
        place = document.index(value)
        for cut in range(place - 1, place + len(value) + 2):
            for start, end in ((0, cut), (cut, len(document))):
                window = document[start:end]
                shown = privacy.mask(window, privacy.cover(window, privacy.window_spans(hidden, (start, end))))
                assert longest_run(shown) <= 4, (kind, form, document, cut, shown)
                assert kind != "email" or "@" not in shown, (form, document, cut, shown)


def test_a_part_of_an_unknown_document_shows_no_number_and_no_address():
    """Without the document: what the ends may have cut is masked as well."""
    for kind, form, value, document in records(96, seed=4):
        place = document.index(value)
        for cut in range(place + 1, place + len(value)):
            for window in (document[:cut], document[cut:]):
                shown = privacy.mask_text(window, open_ends=True)
                assert longest_run(shown) <= 4, (kind, form, document, cut, shown)
                assert kind != "email" or "@" not in shown, (form, document, cut, shown)


def test_what_is_valid_in_whole_documents_is_counted():
    """Every record once, with its kind, in any form; the shares are in benchmarks/results/personal_data.md."""
    missed = [
        (kind, form, value)
        for kind, form, value, document in records(len(MAKERS) * len(FORMS) * 8, seed=5)
        if [each.kind for each in privacy.find(document)] != [kind]
    ]
    assert len(missed) <= 4, missed


def test_spans_of_windows_are_those_of_the_document_character_by_character():
    rng = random.Random(6)
    for _ in range(300):
        length = rng.randrange(1, 60)
        edges = sorted(rng.sample(range(length + 1), min(length + 1, 2 * rng.randrange(4))))
        findings = [Finding("number", *pair) for pair in zip(edges[::2], edges[1::2], strict=False)]
        flags = [any(each.start <= place < each.end for each in findings) for place in range(length)]
        start, end = sorted(rng.choices(range(length + 1), k=2))
        spans = privacy.window_spans(findings, (start, end))
        assert [any(each.start <= place < each.end for each in spans) for place in range(end - start)] == flags[start:end]


def test_windows_are_located_where_they_were_cut():
    rng = random.Random(7)
    for _ in range(200):
        document = "".join(rng.choice("ab c") for _ in range(80)).strip() + "."
        edges = [0, *sorted(rng.sample(range(1, len(document)), 4)), len(document)]
        pieces = [document[start:end] for start, end in itertools.pairwise(edges)]
        for piece, place in zip(pieces, privacy.locate(document, pieces), strict=True):
            # Blank windows hold nothing to be located.
            assert place is None if not piece.strip() else document[slice(*place)] == piece


@pytest.mark.parametrize("bos", [(), (7,)])
def test_documents_have_the_windows_of_the_sequences(tmp_path, bos):
    """Rows of tokens that begin with the id that the model gets anyway, too."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from memtax.corpus.sequences import documents, load_sequences

    class Letters:
        """A token is a letter."""

        is_fast = False

        def batch_decode(self, rows, **_):
            return ["".join(chr(97 + token) for token in row) for row in rows]

        def __len__(self):
            return 26

    rows = [[7, *range(10)], [*range(10, 21)], [7, 1, 2, 3, 4, 5]]
    pq.write_table(pa.table({"tokens": pa.array(rows, pa.list_(pa.int32()))}), tmp_path / "rows.parquet")
    source, letters = Source.parse(str(tmp_path / "rows.parquet")), Letters()
    for cut in ("first", "all"):
        whole = load_sequences(source, window=5, tokenizer=letters, cut=cut, bos=bos).dataset["text"]
        found = documents(source, window=5, tokenizer=letters, cut=cut, bos=bos)
        assert [window for document in found for window in document.windows] == list(whole)


def test_lists_of_influence_quote_no_number_and_no_address():
    import numpy as np

    from memtax.leakage.influence import Influence
    from memtax.leakage.influence_top import top_table

    kinds, _, _, texts = zip(*records(24, seed=8), strict=True)
    # Cut, as a user's own examples may be.
    texts = [text[: len(text) - 3 * number] for number, text in enumerate(texts)]
    sides = (list(range(24)), texts), (list(range(2)), texts[:2])
    found = {"repsim": Influence("repsim", np.arange(48.0).reshape(24, 2), {})}
    masked = top_table(found, *sides, 24, mask=True).to_pylist()
    for row in masked:
        for text in (row["train_text"], row["test_text"]):
            assert longest_run(text) <= 4, text
            assert kinds[row["train_id"]] != "email" or "@" not in row["train_text"], row
    assert {row["train_text"] for row in top_table(found, *sides, 24, mask=False).to_pylist()} == set(texts)
