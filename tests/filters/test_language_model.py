"""The scores filter: under `Dataset.map`, pickled, and through the engine with one and with two processes."""

import pickle

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from helpers.processes import python, torchrun
from memtax.errors import MemtaxError, ModelError
from memtax.filters import filter_class
from memtax.filters.language_model import LanguageModelFilter
from memtax.lm import extraction

SIZE = 512


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=SIZE,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    path = tmp_path_factory.mktemp("model")
    GPTNeoXForCausalLM(config).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def dataset():
    generator = torch.Generator().manual_seed(1)
    lengths = [64 if row % 5 else 1 + row % 64 for row in range(90)]
    tokens = [torch.randint(SIZE, (length,), generator=generator).tolist() for length in lengths]
    types = datasets.Features({"sequence_id": datasets.Value("int64"), "tokens": datasets.List(datasets.Value("int32"))})
    return datasets.Dataset.from_dict({"sequence_id": list(range(90)), "tokens": tokens}, features=types)


def test_columns_leave_as_arrow_arrays_of_their_declared_types(model, dataset):
    scores = LanguageModelFilter(model, token_logprobs=True, moments=True, ranks=True, attention=True, windows=((8, 4),))
    batch = dataset[:]
    found = scores.computed(batch)
    assert all(isinstance(array, pa.Array) for array in found.values())
    assert {name: array.cast(scores.features.arrow_schema.field(name).type).to_pylist() for name, array in found.items()} == (
        scores(batch)
    )
    # A row of one token has no score: empty lists of tokens, no attention.
    short = [row for row, tokens in enumerate(batch["tokens"]) if len(tokens) == 1]
    assert short
    assert {(tuple(scores(batch)["token_logprobs"][row]), scores(batch)["attention_gini"][row]) for row in short} == {
        ((), None)
    }


def test_columns_under_map_equal_plain_transformers(model, dataset):
    table = LanguageModelFilter(model).apply(dataset, batch_size=32)
    assert table.column_names == ["sequence_id", "tokens", *extraction.COLUMNS]
    assert table.features["match_length"].dtype == "int32"
    plain = GPTNeoXForCausalLM.from_pretrained(model).eval()
    for row in table:
        ids = torch.tensor([row["tokens"]])
        if ids.shape[1] < 64:
            assert row["is_memorized"] is row["continuation_perplexity"] is None
        if ids.shape[1] < 32:
            assert row["prompt_perplexity"] is None
        if ids.shape[1] >= 2:
            with torch.no_grad():
                loss = plain(input_ids=ids, labels=ids).loss.double()
            assert row["sequence_perplexity"] == pytest.approx(loss.exp().item(), rel=1e-4)
        else:
            assert row["sequence_perplexity"] is None


def test_exactly_one_token_after_the_prompt(model):
    # 33 tokens: enough for a continuation of one token, not of two.
    batch = {"tokens": [list(range(33))]}
    one, two = LanguageModelFilter(model, continuation=1)(batch), LanguageModelFilter(model, continuation=2)(batch)
    assert one["match_length"][0] in (0, 1)
    assert one["is_memorized"][0] == bool(one["match_length"][0])
    assert two["match_length"] == two["continuation_logprob"] == [None]
    assert two["prompt_perplexity"] == one["prompt_perplexity"] != [None]


def test_empty_batch(model):
    assert LanguageModelFilter(model)({"tokens": []}) == {name: [] for name in extraction.COLUMNS}


def test_token_logprobs_are_added_when_asked_for(model, dataset):
    plain, asked = LanguageModelFilter(model), LanguageModelFilter(model, token_logprobs=True)
    assert asked.columns == (*extraction.COLUMNS, "token_logprobs")
    assert plain.columns == LanguageModelFilter.columns == extraction.COLUMNS
    assert plain.fingerprint != asked.fingerprint
    added = pickle.loads(pickle.dumps(asked)).apply(dataset.select(range(6)))
    for tokens, logprobs, perplexity in zip(
        added["tokens"], added["token_logprobs"], added["sequence_perplexity"], strict=True
    ):
        assert len(logprobs) == max(len(tokens) - 1, 0)
        if logprobs:
            mean = torch.tensor(logprobs, dtype=torch.float64).mean()
            assert perplexity == pytest.approx((-mean).exp().item(), rel=1e-5)


def test_pickled_it_is_parameters_only(model):
    batch = {"tokens": [list(range(64))]}
    original = LanguageModelFilter(model)
    expected = original(batch)
    data = pickle.dumps(original)
    assert len(data) < 1000
    assert pickle.loads(data) == original
    assert pickle.loads(data)(batch) == expected


def test_forked_workers_do_not_hang_after_threaded_work(model, dataset):
    code = f"""
import datasets, torch
from memtax.filters.language_model import LanguageModelFilter
torch.set_num_threads(2)
scores = LanguageModelFilter({model!r})
rows = datasets.Dataset.from_dict({{"tokens": [[i + j for j in range(64)] for i in range(64)]}})
one = rows.map(scores, batched=True, batch_size=16)
two = rows.map(scores, batched=True, batch_size=16, num_proc=2, new_fingerprint="two")
assert one.to_dict() == two.to_dict()
"""
    done = python("-c", code, timeout=60)
    if torch.cuda.is_available():
        # CUDA cannot be used in forks of a process that has used it.
        assert "forked" in done.stderr
    else:
        assert done.returncode == 0, done.stderr[-2000:]


def test_the_fingerprint_follows_weights_and_not_the_optimizer(model, tmp_path):
    plain = GPTNeoXForCausalLM.from_pretrained(model)
    plain.save_pretrained(tmp_path)
    first = LanguageModelFilter(str(tmp_path))
    expected = first({"tokens": [[1, 2, 3]]})["sequence_perplexity"]
    (tmp_path / "optimizer.pt").write_bytes(b"state")
    assert LanguageModelFilter(str(tmp_path)).fingerprint == first.fingerprint
    with torch.no_grad():
        plain.gpt_neox.embed_in.weight.mul_(1.5)
    plain.save_pretrained(tmp_path)
    second = LanguageModelFilter(str(tmp_path))
    assert second.fingerprint != first.fingerprint
    # The model that an earlier filter loaded from the same folder is not used again.
    assert second({"tokens": [[1, 2, 3]]})["sequence_perplexity"] != expected
    assert LanguageModelFilter(str(tmp_path), revision="main").fingerprint != second.fingerprint


@pytest.mark.parametrize("wrong", [{"prompt": 0}, {"continuation": 0}, {"dtype": "int8"}])
def test_parameters_are_checked(wrong):
    with pytest.raises(MemtaxError, match=str(next(iter(wrong.values())))):
        LanguageModelFilter("model", **wrong)


def test_every_column_that_can_be_asked_for_fits_its_declaration(model, dataset):
    asked = LanguageModelFilter(
        model,
        windows=((8, 8), (16, 48)),
        generated=True,
        temperature=0.8,
        top_k=50,
        top_p=0.9,
        probability=0.5,
        token_logprobs=True,
        moments=True,
        ranks=True,
        attention=True,
        batch_size=8,
        device_map="auto",
    )
    table = asked.apply(dataset.select(range(24)), batch_size=12)
    assert table.column_names == ["sequence_id", "tokens", *asked.columns]
    for row in table:
        length = len(row["tokens"])
        scored = max(length - 1, 0)
        assert all(len(row[f"token_{name}"]) == scored for name in ("logprobs", "means", "variances", "ranks"))
        assert (row["memorization_score"] is None) == (row["is_memorized"] is None) == (length < 64)
        assert (row["is_memorized_8_8"] is None) == (length < 16)
        assert (row["attention_gini"] is None) == (length < 2)
        if length >= 2:
            assert len(row["attention_entropy"]) == 2 * 4  # layers times heads
        if row["extraction_queries"] is not None:
            assert row["decoding_logprob"] > -float("inf")
    assert any(row["extraction_queries"] is None for row in table if len(row["tokens"]) == 64)  # top-k excludes random tokens
    plain = LanguageModelFilter(model).apply(dataset.select(range(24)), batch_size=12)
    for name in ("sequence_perplexity", "continuation_logprob"):
        for found, expected in zip(table[name], plain[name], strict=True):
            assert found == (None if expected is None else pytest.approx(expected, rel=1e-4))


def test_windows_and_options_that_contradict_each_other(model):
    with pytest.raises(MemtaxError, match="given twice"):
        LanguageModelFilter(model, windows=((32, 32),))
    with pytest.raises(MemtaxError, match="exact_only computes only"):
        LanguageModelFilter(model, exact_only=True, top_k=5)
    with pytest.raises(MemtaxError, match="unknown quantization '2bit'"):
        LanguageModelFilter(model, quantization="2bit")
    assert LanguageModelFilter(model, exact_only=True, windows=((8, 8),)).columns == (
        "is_memorized",
        "match_length",
        "is_memorized_8_8",
        "match_length_8_8",
    )


def test_errors_reach_the_caller_through_the_catalogue(model, dataset):
    scores = filter_class("scores")(model)
    with pytest.raises(MemtaxError, match="has no column 'tokens'"):
        scores({"text": ["a"]})
    with pytest.raises(ModelError, match=f"token id {SIZE} in row 0"):
        scores({"tokens": [[1, SIZE]]})


RUN = """
import sys
import datasets, torch
from memtax import engine
from memtax.filters.language_model import LanguageModelFilter
rows, model, output, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
world = engine.World.current()
assert world.size == (1 if threads == "2" else 2)
engine.run(datasets.load_from_disk(rows), LanguageModelFilter(model, token_logprobs=True), output, rows_per_batch=4)
"""


def test_one_process_with_two_threads_and_two_with_one_write_the_same_bytes(model, dataset, tmp_path):
    dataset.save_to_disk(tmp_path / "rows")
    script = tmp_path / "run.py"
    script.write_text(RUN)
    common = [script, tmp_path / "rows", model]
    for done in (python(*common, tmp_path / "one", 2), torchrun(*common, tmp_path / "two", 1)):
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (sorted((tmp_path / name).glob("part-*.parquet")) for name in ("one", "two"))
    # 90 rows in batches of 4 and shards of 16 batches: two parts.
    assert [part.name for part in one] == [part.name for part in two] == [f"part-0000{i}-of-00002.parquet" for i in (0, 1)]
    assert [part.read_bytes() for part in one] == [part.read_bytes() for part in two]
    assert pq.read_table(one[0]).column("sequence_perplexity").null_count < 64
