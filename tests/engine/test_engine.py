import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.letters import FirstToken, rows
from helpers.processes import plain, torchrun
from helpers.small import bigram_model, save, transitions
from memtax.engine import Plan, once, plan, run
from memtax.errors import MemtaxError, StaleOutputError
from memtax.filters import LanguageModelFilter
from memtax.lm.scores import score
from memtax.progress import advance, batch_of


def parts(folder):
    return {path.name: path.read_bytes() for path in Path(folder).glob("part-*")}


def expected(count):
    # The filter adds the sum of the tokens, null for a row without tokens: written out again from the rows themselves.
    return [None if i % 7 == 0 else sum(range(i % 5)) + i for i in range(count)]


@given(st.integers(0, 500), st.integers(1, 20), st.integers(1, 5))
def test_a_plan_covers_every_row_once_and_shards_start_on_batches(rows_in_all, batch, batches):
    cut = plan(rows_in_all, batch, batches)
    covered = [row for shard in range(cut.shards) for row in range(*cut.bounds(shard))]
    assert covered == list(range(rows_in_all))
    assert all(cut.bounds(shard)[0] % batch == 0 for shard in range(cut.shards))


def test_a_plan_that_cannot_be_is_refused():
    with pytest.raises(MemtaxError, match="multiple"):
        Plan(10, 3, 10)
    with pytest.raises(MemtaxError, match="at least 1"):
        Plan(10, 0, 10)


def test_the_result_is_the_function_of_every_row_in_order(tmp_path):
    table = run(rows(100), FirstToken(log=str(tmp_path / "log")), tmp_path / "out", rows_per_batch=2)
    assert table.column("match_length").to_pylist() == expected(100)
    assert table.column("sequence_id").to_pylist() == list(range(100, 200))
    # 32 rows per shard: 16 batches of 2; 100 rows make 4 shards.
    assert sorted(parts(tmp_path / "out")) == [f"part-{i:05d}-of-00004.parquet" for i in range(4)]


def test_an_empty_dataset_gives_an_empty_table(tmp_path):
    table = run(rows(0), FirstToken(log=str(tmp_path / "log")), tmp_path / "out")
    assert table.num_rows == 0
    assert table.column_names == ["sequence_id", "match_length"]


def test_two_processes_write_the_bytes_that_one_writes(tmp_path):
    run(rows(100), FirstToken(log=str(tmp_path / "log1")), tmp_path / "one", rows_per_batch=2)
    script = Path(__file__).parent / "two_processes.py"
    done = torchrun(script, tmp_path / "two", tmp_path / "log2")
    assert done.returncode == 0, done.stderr[-2000:]
    assert parts(tmp_path / "one") == parts(tmp_path / "two")
    calls = (tmp_path / "log2").read_text().split()
    assert {call.split(":")[0] for call in calls} == {"0", "1"}
    assert len(calls) == 50


SCORING = """
import sys
import datasets
from memtax import engine
from memtax.filters import LanguageModelFilter
from memtax.lm.scores import score
from memtax.progress import advance, batch_of
rows, model, output = sys.argv[1:]
assert engine.World.current().size == 2
scores = LanguageModelFilter(model, prompt=4, continuation=4)
engine.run(datasets.load_from_disk(rows), scores, output, rows_per_batch=2, batches_per_shard=2)
"""


def test_the_launcher_of_torch_gives_the_shards_of_one_process(tmp_path):
    model = save(bigram_model(transitions()), tmp_path / "model")
    tokens = [[1 + (row + place) % 12 for place in range(8)] for row in range(12)]
    data = datasets.Dataset.from_dict({"sequence_id": list(range(12)), "tokens": tokens})
    data.save_to_disk(tmp_path / "rows")
    (tmp_path / "scoring.py").write_text(SCORING)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words = [*launcher, tmp_path / "scoring.py", tmp_path / "rows", model, tmp_path / "two"]
    environment = plain()
    done = subprocess.run([sys.executable, *map(str, words)], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    scores = LanguageModelFilter(model, prompt=4, continuation=4)
    run(data, scores, tmp_path / "one", rows_per_batch=2, batches_per_shard=2)
    assert len(parts(tmp_path / "one")) == 3
    assert parts(tmp_path / "one") == parts(tmp_path / "two")


def test_finished_shards_are_not_computed_again(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(RuntimeError, match="killed"):
        # Token 71 is in row 71 alone, which lies in the third shard of 32 rows.
        run(rows(100), FirstToken(log=str(log), fail_from=71), tmp_path / "out", rows_per_batch=2)
    assert len(parts(tmp_path / "out")) == 2
    before = parts(tmp_path / "out")
    log.unlink()
    table = run(rows(100), FirstToken(log=str(log)), tmp_path / "out", rows_per_batch=2)
    assert table.column("match_length").to_pylist() == expected(100)
    assert before.items() <= parts(tmp_path / "out").items()
    assert len(log.read_text().split()) == (100 - 64) / 2
    log.unlink()
    run(rows(100), FirstToken(log=str(log)), tmp_path / "out", rows_per_batch=2)
    assert not log.exists()


def test_other_input_in_the_same_folder_is_refused(tmp_path):
    function = FirstToken(log=str(tmp_path / "log"))
    run(rows(100), function, tmp_path / "out", rows_per_batch=2)
    with pytest.raises(StaleOutputError, match="changed: input, rows"):
        run(rows(99), function, tmp_path / "out", rows_per_batch=2)
    with pytest.raises(StaleOutputError, match="rows_per_batch"):
        run(rows(100), function, tmp_path / "out", rows_per_batch=4)


@pytest.mark.parametrize("fault", ["cut", "swapped", "bit", "record", "no record"])
def test_a_part_that_is_not_as_written_is_computed_again_and_named(tmp_path, capsys, fault):
    function = FirstToken(log=str(tmp_path / "log"))
    run(rows(100), function, tmp_path / "out", rows_per_batch=2)
    before = parts(tmp_path / "out")
    part = tmp_path / "out" / "part-00001-of-00004.parquet"
    record = part.with_name(f".{part.name}.sum")
    if fault == "cut":
        part.write_bytes(part.read_bytes()[:50])
    elif fault == "swapped":  # with the record that belongs to it
        other = part.with_name("part-00002-of-00004.parquet")
        part.write_bytes(other.read_bytes())
        record.write_bytes(other.with_name(f".{other.name}.sum").read_bytes())
    elif fault == "no record":
        record.unlink()
    else:
        damaged = part if fault == "bit" else record
        content = bytearray(damaged.read_bytes())
        content[len(content) // 2] ^= 4
        damaged.write_bytes(content)
    (tmp_path / "log").unlink()
    table = run(rows(100), function, tmp_path / "out", rows_per_batch=2)
    assert table.column("match_length").to_pylist() == expected(100)
    assert parts(tmp_path / "out") == before
    assert len((tmp_path / "log").read_text().split()) == 16  # the batches of one shard
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "made again" in line)
    assert part.name in line


def test_parts_prove_the_work_when_the_manifest_is_gone(tmp_path):
    function = FirstToken(log=str(tmp_path / "log"))
    run(rows(100), function, tmp_path / "out", rows_per_batch=2)
    manifest = tmp_path / "out" / "stage.json"
    before = manifest.read_bytes()
    (tmp_path / "log").unlink()
    for damaged in (before[:-30], before.replace(b'"rows": 100', b'"rows": 101'), b"", None):
        manifest.unlink() if damaged is None else manifest.write_bytes(damaged)
        with pytest.raises(StaleOutputError):
            run(rows(99), function, tmp_path / "out", rows_per_batch=2)
        run(rows(100), function, tmp_path / "out", rows_per_batch=2)
        assert manifest.read_bytes() == before
        assert not (tmp_path / "log").exists()
    for record in (tmp_path / "out").glob(".*.sum"):
        record.unlink()
    manifest.unlink()
    with pytest.raises(StaleOutputError, match="missing"):
        run(rows(100), function, tmp_path / "out", rows_per_batch=2)


def test_a_missing_column_is_named_before_anything_is_written(tmp_path):
    with pytest.raises(MemtaxError, match="no column 'tokens'"):
        run(datasets.Dataset.from_dict({"sequence_id": [1]}), FirstToken(log=str(tmp_path / "log")), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_once_makes_reuses_and_refuses(tmp_path):
    def make(folder):
        (folder / "made").write_text("x")

    assert once(tmp_path / "d", {"a": 1}, make)
    assert not once(tmp_path / "d", {"a": 1}, make)
    with pytest.raises(StaleOutputError, match="changed: a"):
        once(tmp_path / "d", {"a": 2}, make)


def test_once_makes_again_what_is_damaged_and_repairs_its_manifest(tmp_path, capsys):
    def make(folder):
        (folder / "in").mkdir()
        (folder / "in" / "made").write_text("whole")
        (folder / "other").write_text("whole")

    for damage in (
        lambda folder: (folder / "in" / "made").write_text("whols"),
        lambda folder: (folder / "other").unlink(),
        lambda folder: (folder / "other").write_text(""),
        lambda folder: (folder / ".memtax-checksums.json").write_text("{}"),
        lambda folder: (folder / ".memtax-checksums.json").unlink(),
    ):
        once(tmp_path / "d", {"a": 1}, make)
        damage(tmp_path / "d")
        assert once(tmp_path / "d", {"a": 1}, make)
        assert f"{tmp_path / 'd'} is made again" in capsys.readouterr().err
        assert (tmp_path / "d" / "in" / "made").read_text() == (tmp_path / "d" / "other").read_text() == "whole"
    manifest = (tmp_path / "d" / "stage.json").read_bytes()
    for damaged in (b"", manifest.replace(b"1", b"0")):
        (tmp_path / "d" / "stage.json").write_bytes(damaged)
        assert not once(tmp_path / "d", {"a": 1}, make)
        assert (tmp_path / "d" / "stage.json").read_bytes() == manifest


def test_once_leaves_nothing_of_a_failed_attempt(tmp_path):
    def make(folder):
        (folder / "half").touch()
        raise OSError

    with pytest.raises(OSError):
        once(tmp_path / "d", {"a": 1}, make)
    assert not list(tmp_path.iterdir())


def test_a_bar_moves_within_a_batch_and_counts_each_row_once():
    counted = []
    with batch_of(10, counted.append):
        advance(4)
        # A second pass over the same rows, as for a text's other version.
        advance(4)
        advance(4)
    advance(1)
    assert counted == [4, 4, 2]
    counted.clear()
    with batch_of(10, counted.append):
        advance(3)
    assert counted == [3, 7]


def test_a_forward_pass_reports_its_rows_before_the_batch_ends(monkeypatch):
    model, counted = bigram_model(transitions()), []
    monkeypatch.setattr("memtax.lm.scores.BATCH_TOKENS", {"cpu": 32, "accelerator": 32})
    with batch_of(16, counted.append):
        score(model, [[1, 2, 3, 4, 5, 6, 7, 8]] * 16)
        assert len(counted) > 1
        assert sum(counted) == 16
    assert sum(counted) == 16
