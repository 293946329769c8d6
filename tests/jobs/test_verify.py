"""`memtax verify` names every file of an audit, its model and its data that was changed by a byte, and only that one."""

import json
import subprocess

import pytest
from typer.testing import CliRunner

import memtax
from memtax.cli import app
from memtax.errors import MemtaxError
from memtax.pipeline import audit_record

VERDICTS = [{"about": "extraction", "verdict": "shown", "sentence": "All of it."}]


@pytest.fixture
def audit(tmp_path):
    """A folder with the files of an audit, and what it read."""
    files = {
        "model/config.json": '{"model_type": "gpt_neox"}',
        "model/model.safetensors": "weights",
        "model/tokenizer.json": "{}",
        "model/optimizer.pt": "state",
        "data/train.jsonl": '{"text": "a"}\n',
        "data/unseen.jsonl": '{"text": "b"}\n',
        "out/summary.json": '{"figures": {}}',
        "out/index.html": "<p>",
        "out/dataset/worrying/train.parquet": "PAR1",
        "out/dataset/.memtax-files": '["worrying/train.parquet"]',
        "out/dataset/notes.txt": "the user's",
        "out/run/notes.txt": "the user's",
        "out/run/filters/templates/part-00000-of-00001.parquet": "PAR1",
        "out/run/filters/templates/.part-00000-of-00001.parquet.sum": "",
        "out/run/run.yaml": "memtax: run\nfinished: 2026-01-01\nseconds: 3\n",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    data = {"train": f"{tmp_path}/data/train.jsonl", "held_out": f"{tmp_path}/data/*seen.jsonl", "canaries": "org/name"}
    names = ["summary.json", "index.html", "dataset", "run"]
    audit_record.write(tmp_path / "out", {"model": str(tmp_path / "model")}, data, names, {"verdicts": VERDICTS})
    return tmp_path


def verify(folder):
    done = CliRunner().invoke(app, ["verify", str(folder)], catch_exceptions=False)
    return done.exit_code, done.output


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def test_nothing_changed(audit):
    (audit / "out").rename(audit / "moved")
    code, said = verify(audit / "moved")
    (audit / "moved").rename(audit / "out")
    assert code == 0
    # 3 of the model, 2 of the data, 5 of the audit; the optimizer's state does not count.
    assert "10 files as audited; nothing was changed" in said
    assert "not checked: canaries org/name" in said
    # The side file is one that `sha256sum` reads.
    done = subprocess.run(["sha256sum", "-c", "audit.json.sha256"], cwd=audit / "out", capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "audit.json: OK\n")
    assert (audit / "out" / "audit.json.sha256").read_text().split()[0] in said


@pytest.mark.parametrize(
    "name",
    [
        "model/model.safetensors",
        "model/config.json",
        "model/tokenizer.json",
        "data/train.jsonl",
        "data/unseen.jsonl",
        "out/summary.json",
        "out/index.html",
        "out/dataset/worrying/train.parquet",
        "out/audit.json",
        "out/audit.json.sha256",
    ],
)
def test_one_byte_is_named(audit, name):
    flip(audit / name)
    code, said = verify(audit / "out")
    changed = [line for line in said.splitlines() if line.startswith(("changed", "unreadable", "missing"))]
    assert code == 1
    assert all(name.removeprefix("out/").removesuffix(".sha256") in line for line in changed), said
    assert len(changed) == 1 or name == "out/audit.json"


@pytest.mark.parametrize("content", ['["worrying/trail.parquet"]', '["worrying/train.parquet"'])
def test_a_damaged_list_of_files_makes_no_file_of_the_user_part_of_the_audit(audit, content):
    (audit / "out/dataset/.memtax-files").write_text(content)
    with pytest.raises(MemtaxError, match=r"dataset/\.memtax-files, the list of .* is damaged"):
        audit_record.write(audit / "out", {}, {}, ["dataset"], {"verdicts": VERDICTS})


def test_every_byte_of_the_record_counts(audit):
    record = audit / "out" / "audit.json"
    before = record.read_bytes()
    for place in range(0, len(before), 7):
        content = bytearray(before)
        content[place] ^= 1 << place % 8
        record.write_bytes(bytes(content))
        assert audit_record.check(audit / "out").different[0].startswith("changed: audit.json")
    record.write_bytes(before)
    assert not audit_record.check(audit / "out").different


def test_missing_files_times_and_other_folders(audit):
    (audit / "out/index.html").unlink()
    (audit / "data/train.jsonl").unlink()
    (audit / "out/run/run.yaml").write_text("memtax: run\nfinished: 2027-02-02\nseconds: 9\n")
    (audit / "out/note.txt").write_text("mine")
    found = memtax.verify(directory=audit / "out")
    assert found.code == 1
    assert [line.partition(":")[0] for line in found.figures["different"]] == ["missing", "missing"]
    (audit / "out/run/run.yaml").write_text("memtax: run\nseed: 1\nfinished: 2027-02-02\n")
    assert "changed: run/run.yaml" in audit_record.check(audit / "out").different
    with pytest.raises(MemtaxError, match=r"has no audit\.json; give the output of memtax audit"):
        audit_record.check(audit)


def test_a_record_from_elsewhere_reads_nothing_outside_its_folder(audit):
    record = audit / "out" / "audit.json"
    content = json.loads(record.read_text())
    names = ("../data/train.jsonl", "/etc/passwd", "a" * 5000)
    content["figures"] = [{"path": name, "sha256": "0" * 64} for name in names]
    record.write_text(json.dumps(content))
    different = audit_record.check(audit / "out").different
    assert sum("outside its folder" in line for line in different) == 2
    content["inputs"] = []
    record.write_text(json.dumps(content))
    assert any(line.startswith("unreadable") for line in audit_record.check(audit / "out").different)
