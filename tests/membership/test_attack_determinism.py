"""Every registered attack gives the same scores whatever the order, the cuts, the padding, the threads, and after a kill."""

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertForMaskedLM, GPTNeoXConfig, GPTNeoXForCausalLM

from helpers.small import VOCABULARY, WORDS, batch, ids, random_texts, save
from helpers.word_pieces import word_pieces
from memtax import schema
from memtax.corpus.membership_texts import COLUMNS
from memtax.engine import World
from memtax.errors import MemtaxError
from memtax.files import write_json, write_parquet
from memtax.jobs.base import Work
from memtax.membership import measure as membership
from memtax.membership.attacks import ATTACKS
from memtax.membership.evidence import AttackFilter
from memtax.membership.late import late_scores

ROWS = 48
EARLY = [name for name, attack in ATTACKS.items() if not attack.late]
LATE = [attack for attack in ATTACKS.values() if attack.late]
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


@pytest.fixture(scope="module")
def texts():
    """Of many lengths, longer than the model's 64 positions too; one empty, one of a word, one twice."""
    words = random_texts(ROWS, 90, seed=3)
    found = [" ".join(text.split()[: (90, 40, 7, 70, 2, 21)[row % 6]]) for row, text in enumerate(words)]
    return [*found[:-3], "", "w1", found[0]]


@pytest.fixture(scope="module")
def given_to_all(tmp_path_factory):
    """All that an attack can ask for: a model to attack, another, a masked one, token counts, a prefix."""
    folder = tmp_path_factory.mktemp("attacks")
    for seed, name in enumerate(("model", "reference")):
        torch.manual_seed(seed)
        save(GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=VOCABULARY, max_position_embeddings=64, **SHAPE)), folder / name)
    tokenizer = word_pieces(*WORDS, do_lower_case=False, model_max_length=128)
    tokenizer.save_pretrained(folder / "masked")
    torch.manual_seed(2)
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **SHAPE)).save_pretrained(
        folder / "masked"
    )
    counts = pa.table({"token_id": np.arange(VOCABULARY), "token_frequency": np.arange(VOCABULARY) * 3})
    (folder / "counts").mkdir()
    pq.write_table(
        counts.cast(schema.arrow_schema(("token_id", "token_frequency"))), folder / "counts" / "token_frequencies.parquet"
    )
    paths = {"reference_model": "reference", "neighbour_model": "masked", "frequencies": "counts"}
    return {"model": str(folder / "model"), **{name: str(folder / path) for name, path in paths.items()}}


@pytest.fixture(scope="module")
def scorer(given_to_all):
    prefixes = (("all", tuple(ids("w1 w2 w3 w4 w5 w6 w7 w8"))),)
    return AttackFilter(attacks=tuple(EARLY), neighbours=3, prefixes=prefixes, **given_to_all)


@pytest.fixture(scope="module")
def whole(scorer, texts):
    return scorer(batch(texts))


def same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert [value is None for value in found[name]] == [value is None for value in values], name
        pairs = [pair for pair in zip(found[name], values, strict=True) if pair[0] is not None]
        np.testing.assert_allclose(*zip(*pairs, strict=True), rtol=1e-5, atol=1e-5, err_msg=name)


def test_every_attack_scores_most_texts(whole):
    for attack in ATTACKS.values():
        if not attack.late:
            assert all(sum(value is not None for value in whole[column]) > ROWS / 2 for column in attack.columns), attack.name


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(order=st.permutations(range(ROWS)), cuts=st.sets(st.integers(1, ROWS - 1), max_size=4))
def test_order_of_texts_and_cuts_do_not_matter(scorer, texts, whole, order, cuts):
    found = {name: [None] * ROWS for name in whole}
    for start, stop in itertools.pairwise([0, *sorted(cuts), ROWS]):
        part = scorer(batch([texts[row] for row in order[start:stop]]))
        for name, values in part.items():
            for row, value in zip(order[start:stop], values, strict=True):
                found[name][row] = value
    same(found, whole)


@pytest.mark.parametrize("positions", [64, 256, 1000])
def test_the_batch_size_does_not_matter(scorer, texts, whole, positions):
    import dataclasses

    same(dataclasses.replace(scorer, batch_size=positions)(batch(texts)), whole)


def test_the_side_of_the_padding_does_not_matter(scorer, texts, whole, monkeypatch):
    from memtax.lm import scores

    right = scores.score

    def left(*arguments, **options):
        used.append(len(arguments[1]))
        return right(*arguments, **options, padding_side="left")

    used = []
    monkeypatch.setattr(scores, "score", left)
    same(scorer(batch(texts)), whole)
    assert used


@pytest.fixture(scope="module")
def tables(texts):
    """The texts, and what attacks of finished tables read: each column by its name, and scores of eight reference models."""
    rng = np.random.default_rng(5)
    rows = {name: [None] * ROWS for name in COLUMNS}
    rows |= {"sequence_id": list(range(ROWS)), "domain": ["all"] * ROWS, "text": texts}
    rows["is_member"] = [row % 2 == 0 for row in range(ROWS)]
    named = sorted({need for attack in LATE for need in attack.needs if need.startswith("column:")})
    columns = {"sequence_id": list(range(ROWS)), **{need.removeprefix("column:"): rng.normal(size=ROWS) for need in named}}
    references = {
        "sequence_id": list(range(ROWS)),
        "model_scores": rng.normal(-3, 1, (ROWS, 8)).tolist(),
        "model_included": (rng.random((ROWS, 8)) < 0.5).tolist(),
    }
    return pa.table(rows, schema=schema.arrow_schema(COLUMNS)), pa.table(columns), pa.table(references)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(order=st.permutations(range(ROWS)))
def test_order_does_not_matter_to_attacks_of_finished_tables(tables, whole, order):
    texts, columns, references = tables
    table = texts.append_column("attack_loss", pa.array(whole["attack_loss"], pa.float64()))
    population = [1, 3, 5, 7, 9]
    wanted = late_scores(table, LATE, columns, references, population)
    # The other tables are joined by id, so their order is nothing; the population is the same texts at other places.
    places = [order.index(row) for row in population]
    found = late_scores(table.take(order), LATE, columns.take(order[::-1]), references.take(order), places)
    names = [column for attack in LATE for column in attack.columns]
    assert names
    inverse = np.argsort(order)
    same(*({name: each.column(name).to_pylist() for name in names} for each in (found.take(inverse), wanted)))
    assert all(wanted.column(name).null_count < ROWS / 2 for name in names)


def run(tables, scorer, output):
    data, columns, references = tables
    options = {"columns": columns, "references": references, "shots": 3, "resamples": 20}
    work = Work(output, World.current())
    found = membership.infer_membership(data, scorer, work.stage, attacks=tuple(ATTACKS), **options)
    if work.world.is_main:
        write_parquet(output / "scores.parquet", found.table)
        write_json(output / "figures.json", found.figures)


def files(output):
    """Every file."""
    return {str(path.relative_to(output)): path.read_bytes() for path in sorted(output.rglob("*")) if path.is_file()}


def test_threads_processes_and_a_kill_leave_the_same_bytes(tables, scorer, tmp_path, monkeypatch):
    monkeypatch.setattr(membership, "ROWS_PER_BATCH", 16)
    run(tables, scorer, tmp_path / "one")
    wanted = files(tmp_path / "one")
    assert sum(name.endswith(".parquet") and "part-" in name for name in wanted) == 3  # 48 rows in shards of 16
    gone = sorted((tmp_path / "one").rglob("part-*.parquet"))[1]
    gone.unlink()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        run(tables, scorer, tmp_path / "one")
    finally:
        torch.set_num_threads(threads)
    assert files(tmp_path / "one") == wanted
    # Two processes, here one after the other: the first misses the other's parts, and finds them at its second attempt.
    monkeypatch.setattr(World, "wait", lambda self: None)
    for rank in (0, 1, 0):
        monkeypatch.setattr(World, "current", classmethod(lambda cls, rank=rank: cls(rank, 2)))
        if not (tmp_path / "two").exists():
            with pytest.raises(MemtaxError, match=r"part-\S+ cannot be read"):
                run(tables, scorer, tmp_path / "two")
        else:
            run(tables, scorer, tmp_path / "two")
    assert files(tmp_path / "two") == wanted
