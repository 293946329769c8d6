"""Publishing to and loading from a Hub that does things in other ways: only what the public client promises is relied on."""

from helpers.hub import OtherHub
from helpers.pushed_run import ROWS, child


def test_push_again_and_load(run, tmp_path):
    with OtherHub() as hub:
        program = f"""
from memtax.hub.publish import publish
for _ in (1, 2):
    print("\\n".join(line for done in publish({str(run)!r}, "org/name") for line in done.lines()))
"""
        printed = child(hub, tmp_path / "cache", "-c", program).stdout.splitlines()
        # What lies there is known by its digests alone, on whichever page it is listed: the second time nothing is sent.
        # Notes are set in.
        done = [line.endswith("(up to date)") for line in printed if not line.startswith(" ")]
        assert done == [False] * 4 + [True] * 4, printed
        assert all(len(repo.commits) == 2 for repo in hub.repos.values())
        # One page of each repository at first, then more: every one has more entries than a page holds.
        assert hub.pages >= 3 * len(hub.repos)
        # Each large object (two tables, three models) went to the storage host, without the token, and was verified.
        assert len(hub.lfs) == 2 + 3
        assert sorted(path.strip("/").split("?")[0] for _, path in hub.storage_requests) == sorted(hub.lfs)
        assert sorted(hub.verified) == sorted(hub.lfs)

        hub.moved["org/before"] = "org/name"
        program = f"""
from datasets import load_dataset
from memtax import Predictor
from memtax.report.explorer import Explorer
from transformers import pipeline
import pyarrow.parquet as pq
here = pq.read_table({str(run / "dataset" / "features" / "train.parquet")!r})
rows = load_dataset("org/name", "features", split="train")
assert rows["text"][:] == here.column("text").to_pylist() and len(rows) == {ROWS}
assert next(iter(load_dataset("org/before", "features", split="train", streaming=True)))["text"] == rows[0]["text"]
there = Predictor.from_pretrained("org/before-predictor").predict(here)
assert there.equals(Predictor.from_pretrained({str(run / "models" / "predictor")!r}).predict(here))
assert pipeline("text-classification", "org/name-code")("the def x")[0]["label"] in ("nl", "code")
assert Explorer.load("org/name").rows()[0] == {ROWS}
"""
        child(hub, tmp_path / "fresh", "-c", program)
