"""The layouts of the published datasets: columns as they are published, and round trips through the writer and the reader."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from memtax import schema
from memtax.published import layouts
from memtax.published.reading import from_published
from memtax.published.writing import match_splits, renamed, to_published, write_splits

COLUMNS = {
    "EleutherAI/pythia-memorized-evals": "index tokens",
    "EleutherAI/pile-deduped-pythia-random-sampled": "Index Tokens",
    "usvsnsp/pile-test-sampled": "sequence_id tokens",
    "usvsnsp/generation-num-duplicates": "sequence_id counts",
    "usvsnsp/deduped-num-frequencies": "TokenID Frequency",
    "usvsnsp/pile-pythia-code-vs-nl-scores": "sequence_id nl_scores",
    "usvsnsp/semantic-duplicates": "index 0.8_frequencies 0.9_frequencies",
    "usvsnsp/semantic-filters": "sequence_id tokens text sequence_duplicates max_frequency avg_frequency min_frequency "
    "median_frequency p25_frequency p75_frequency is_incrementing is_repeating huffman_coding_length 0_8_snowclones "
    "0_9_snowclones 0_8_templates 0_9_templates nl_scores prompt_perplexity "
    "generation_perplexity sequence_perplexity memorization_score",
}


def ours(rows=50):
    """Features as a run writes them, with nulls."""
    rng = np.random.default_rng(3)
    loss = rng.gamma(1, 0.5, (2, rows))
    missing = rng.random(rows) < 0.2
    memorized = rng.random(rows) < 0.5
    table = {
        "sequence_id": np.arange(rows),
        "tokens": rng.integers(1, 9, (rows, 64)).tolist(),
        "text": ["plain"] * rows,
        "sequence_duplicates": rng.integers(1, 9, rows),
        **{name: rng.integers(1, 99, rows) for name in ("max_frequency", "min_frequency")},
        **{f"{name}_frequency": rng.random(rows) for name in ("avg", "median", "p25", "p75")},
        "is_incrementing": rng.random(rows) < 0.5,
        "is_repeating": rng.random(rows) < 0.5,
        "shannon_coding_length": rng.random(rows),
        **{f"{kind}_matches_0_{n}": rng.integers(0, 5, rows) for kind in ("semantic", "textual") for n in (8, 9)},
        "nl_score": pa.array(rng.random(rows), pa.float32(), mask=missing),
        "prompt_perplexity": pa.array(np.exp(loss[0]), pa.float32(), mask=missing),
        "continuation_perplexity": pa.array(np.exp(loss[1]), pa.float32(), mask=missing),
        "sequence_perplexity": pa.array(np.exp((31 * loss[0] + 32 * loss[1]) / 63), pa.float32(), mask=missing),
        "memorization_score": np.where(memorized, 1.0, 0.5),
        "is_memorized": memorized,
    }
    return schema.validate(pa.table(table), table)


@pytest.mark.parametrize(("name", "columns"), COLUMNS.items())
def test_columns_are_the_published_ones(name, columns):
    import re

    [layout] = [layout for layout in layouts.LAYOUTS.values() if re.fullmatch(layout.names, name)]
    assert " ".join(layout.columns) == columns
    assert set(layout.columns.values()) <= set(schema.COLUMNS)
    assert schema.rename_published(layout.columns).items() <= layout.columns.items()


@pytest.mark.parametrize("in_sample", [True, False])
def test_features_come_back_as_they_were(in_sample):
    table = ours()
    theirs = to_published(table, in_sample)
    assert theirs.column_names == COLUMNS["usvsnsp/semantic-filters"].split()
    again = from_published(theirs, in_sample)
    assert set(again.column_names) == set(table.column_names)
    for name in table.column_names:
        found, wanted = again.column(name).to_pylist(), table.column(name).to_pylist()
        assert found == (wanted if name in ("tokens", "text") else pytest.approx(wanted)), name


@pytest.mark.parametrize("layout", [layouts.DUPLICATES, layouts.FREQUENCIES, layouts.CODE_SCORES])
def test_tables_of_equal_values_are_renamed_both_ways(layout, tmp_path):
    names = list(layout.columns.values())
    table = schema.validate(pa.table({names[0]: [4, 2], names[1]: [0, 1]}), names)
    write_splits(tmp_path / "d", layout, {"deduped": renamed(table, layout)}, "title", {})
    found = pq.read_table(tmp_path / "d" / "data" / "deduped.parquet")
    assert found.column_names == list(layout.columns)
    renaming = schema.rename_published(found.column_names)
    assert found.rename_columns([renaming.get(name, name) for name in found.column_names]).to_pydict() == table.to_pydict()


@pytest.mark.parametrize("name", ["deduped", "deduped_12b"])
def test_matches_count_the_sequence_itself_where_the_corpus_is_the_sample(name):
    table = ours()
    splits = match_splits(table, name)
    for split, found in splits.items():
        kind = {"snowclones": "semantic", "templates": "textual"}[split.rpartition("_")[2]]
        itself = int(kind == "semantic" and name == "deduped")
        assert layouts.counts_itself(split) == (split == "deduped_snowclones")
        wanted = [count + itself for count in table.column(f"{kind}_matches_0_8").to_pylist()]
        assert found.column("0.8_frequencies").to_pylist() == wanted


def test_a_failure_of_the_published_tables_is_null():
    theirs = to_published(ours(6), in_sample=True).to_pydict()
    theirs["0_8_snowclones"][0] = theirs["0_8_snowclones"][1] = -1
    theirs["0_8_snowclones"][1] = 0  # a sequence of the sample matches itself
    theirs["0_8_templates"][2], theirs["text"][2] = 0, "caf\N{LATIN SMALL LETTER E WITH ACUTE}"
    theirs["nl_scores"][3] = -1.0
    theirs["memorization_score"][4] = -1.0
    theirs["sequence_perplexity"][5] = -1.0
    again = from_published(pa.table(theirs), in_sample=True).to_pydict()
    assert again["semantic_matches_0_8"][0] is again["semantic_matches_0_8"][1] is again["textual_matches_0_8"][2] is None
    assert again["nl_score"][3] is again["memorization_score"][4] is again["is_memorized"][4] is None
    assert again["sequence_perplexity"][5] is None


def test_our_own_huffman_length_is_not_taken_for_the_published_one():
    # A column of both names' meaning: ours is a Huffman code's, the published one a Shannon code's.
    assert schema.rename_published(["sequence_id", "huffman_coding_length", "text"]) == {}
    assert schema.rename_published(["huffman_coding_length", "shannon_coding_length", "nl_scores"]) == {"nl_scores": "nl_score"}
    assert schema.rename_published(["huffman_coding_length", "0_8_snowclones"]) == {
        "huffman_coding_length": "shannon_coding_length",
        "0_8_snowclones": "semantic_matches_0_8",
    }
    assert schema.rename_published(["index", "sequence_id"]) == {}
    assert list(schema.rename_published(["index", "Index"]).values()) == ["sequence_id"]
