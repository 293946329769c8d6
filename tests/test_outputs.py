"""An output directory has one holder under every name, and only memtax's own files in it are touched."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from memtax import journal, mounts, outputs
from memtax.errors import MemtaxError
from memtax.files import atomic_directory, atomic_path, write_text

ROOT = Path(__file__).parents[1]
HOLDER = """\
import sys, time
from pathlib import Path
from memtax.files import atomic_path, write_text
from memtax.outputs import hold
with hold(sys.argv[1], "memtax count"):
    write_text(Path(sys.argv[1], "stage.json"), "{}")
    with atomic_path(Path(sys.argv[1], "parts", "part-0.parquet")) as path:
        path.write_text("half")
        print(path.parent, flush=True)
        time.sleep(60)
"""
FOREIGN = (
    ".bashrc.20250101.old",
    "project/deep/.env.backup01.old",
    ".notes.draft_01.tmp",
    ".tmpAb12Cd",
    ".config.20250101.old/settings",
    "part.memtax-1-0123456789abcdef-0.tmp",
    ".x.memtax-99999999-0123456789abcdef-0.tmp/x",
)


@pytest.fixture
def start(tmp_path):
    """Starts a process that holds a directory and is in the middle of a part."""
    children = []

    def started(output):
        words = [sys.executable, "-c", HOLDER, str(output)]
        child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        children.append(child)
        return child, Path(child.stdout.readline().strip())

    yield started
    for child in children:
        child.kill()
        child.wait()


def make(folder, names=FOREIGN):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_directory_of_foreign_files_is_refused_and_left_as_it_is(tmp_path):
    make(tmp_path)
    before = content(tmp_path)
    with pytest.raises(MemtaxError, match=r"contains files that are not memtax's \(\.bashrc.*choose a new or empty"):
        outputs.hold(tmp_path, "count").__enter__()
    # A file that is merely named as the marker proves nothing.
    (tmp_path / ".memtax").write_text("notes")
    with pytest.raises(MemtaxError, match="not memtax's"):
        outputs.hold(tmp_path, "count").__enter__()
    (tmp_path / ".memtax").unlink()
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.yaml", "memtax: run\nconfig: {}\n"),
        ("stage.json", "{}"),
        ("corpus/stage.json", "{}"),
        ("predictor.json", '{\n  "memtax_predictor": 2'),
        (".memtax", ""),
    ],
)
def test_what_memtax_wrote_is_its_own_and_foreign_files_in_it_survive(tmp_path, name, text):
    make(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    before = content(tmp_path)
    with outputs.hold(tmp_path, "count"):
        write_text(tmp_path / "added", "1")
    assert content(tmp_path) == {**before, "added": b"1", ".memtax": b'{"memtax": "output"}\n'}


def test_a_directory_that_a_run_leaves_unchanged_keeps_no_marker(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "stage.json").write_text("{}")
    with pytest.raises(MemtaxError), outputs.hold(tmp_path / "old", "refuses"):
        raise MemtaxError
    assert os.listdir(tmp_path / "old") == ["stage.json"]
    with outputs.hold(tmp_path / "new" / "deep", "writes nothing"):
        pass
    assert os.listdir(tmp_path) == ["old"]
    # What a failed run has written can be resumed, whatever it is.
    with pytest.raises(MemtaxError), outputs.hold(tmp_path / "new", "fails later"):
        write_text(tmp_path / "new" / "part", "")
        raise MemtaxError
    with outputs.hold(tmp_path / "new", "resumes"):
        pass


def test_only_what_the_journal_of_a_killed_process_names_is_removed(tmp_path, start):
    child, temporary = start(tmp_path / "out")
    # As safetensors does: a file of its own beside the one that it was told to write.
    (temporary / ".tmpAb12Cd").write_text("")
    make(tmp_path / "out")
    make(tmp_path, (".out.abcd1234.old", ".out.abcd1234.tmp"))
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    before = content(tmp_path)
    with pytest.raises(MemtaxError), outputs.hold(tmp_path / "out", "refuses"):
        raise MemtaxError
    # A run that refuses the directory cleans nothing up.
    assert before == {**content(tmp_path), "out/.memtax": before["out/.memtax"]}
    with outputs.hold(tmp_path / "out", "next"):
        write_text(tmp_path / "out" / "added", "")
        assert not temporary.exists()
    ours = {"out/added", "out/stage.json", "out/.memtax"}
    assert content(tmp_path).keys() == ours | {f"out/{name}" for name in FOREIGN} | {".out.abcd1234.old", ".out.abcd1234.tmp"}


@pytest.mark.parametrize("line", ["../../victim", "/etc/hostname", "victim", "a/../../victim", ".x.memtax-1-%s-0.tmp", "\0"])
def test_a_forged_journal_removes_nothing(tmp_path, line):
    token = "0123456789abcdef"
    out = tmp_path / "out"
    (out / ".memtax").parent.mkdir()
    (out / ".memtax").write_text("")
    (out / f".memtax-2-{token}.journal").write_text(json.dumps(line.replace("%s", token)) + "\n[[[\n")
    make(tmp_path, ("victim/x", "out/victim/x", f"out/.x.memtax-1-{token}-0.tmp/x"))
    with outputs.hold(out, "next"):
        write_text(out / "added", "")
    assert len([path for path in tmp_path.rglob("x") if path.is_file()]) == 3


def test_a_directory_that_was_being_replaced_comes_back(tmp_path):
    out, token = tmp_path / "out", "0123456789abcdef"
    temporary = out / f".dataset.memtax-2-{token}-0.tmp"
    make(out, (f"{temporary.name}/.replaced/dataset/rows", f"{temporary.name}/dataset/rows"))
    (out / ".memtax").write_text("")
    (out / f".memtax-2-{token}.journal").write_text(json.dumps(temporary.name) + "\n")
    with outputs.hold(out, "next"):
        assert "replaced" in (out / "dataset" / "rows").read_text()
    assert content(out).keys() == {".memtax", "dataset/rows"}


def test_every_name_of_a_directory_is_the_same_lock(tmp_path, start, monkeypatch):
    start(tmp_path / "real" / "out")
    (tmp_path / "link").symlink_to("real/out")
    (tmp_path / "parent").symlink_to("real")
    monkeypatch.chdir(tmp_path / "real")
    names = [tmp_path / "link", tmp_path / "parent" / "out", "out", "out/", "./../real/out/.", tmp_path / "real/x/../out"]
    for name in names:
        with pytest.raises(MemtaxError, match="is in use by process"):
            outputs.hold(name, "second").__enter__()


def test_a_live_run_inside_or_around_a_directory_is_refused_and_its_files_stay(tmp_path, start):
    write_text(tmp_path / "out" / "stage.json", "{}")
    with outputs.hold(tmp_path / "out", "first"):
        write_text(tmp_path / "out" / "x", "")
    child, temporary = start(tmp_path / "out" / "inner" / "deep")
    with pytest.raises(MemtaxError, match="is in use by another run, on this directory or one inside it"):
        outputs.hold(tmp_path / "out", "outer").__enter__()
    # Not known before it began: a directory that is held is not replaced either.
    with pytest.raises(MemtaxError, match=r"deep is in use by another run"), atomic_directory(tmp_path / "out" / "inner"):
        pass
    with outputs.hold(tmp_path / "out" / "other", "beside"):
        write_text(tmp_path / "out" / "other" / "x", "")
    assert temporary.is_dir()
    child.kill()
    child.wait()
    with (
        outputs.hold(tmp_path / "out", "outer"),
        pytest.raises(MemtaxError, match=r"inner is inside .*out, which is in use by process \d+ .* \(outer\)"),
    ):
        outputs.hold(tmp_path / "out" / "inner", "inner").__enter__()
    # The inner directory's journal is the inner directory's.
    assert temporary.is_dir()


def test_a_run_is_read_while_nobody_writes_and_left_as_it_is(tmp_path, start):
    with outputs.read(tmp_path):
        assert not list(tmp_path.iterdir())
    child, _ = start(tmp_path / "out")
    with pytest.raises(MemtaxError, match="in use by process"):
        outputs.read(tmp_path / "out").__enter__()
    child.kill()
    child.wait()
    with outputs.read(tmp_path / "out"), pytest.raises(MemtaxError, match="in use"):
        outputs.hold(tmp_path / "out", "writes").__enter__()


def test_children_note_their_temporary_names_themselves_and_live_ones_are_left_alone(tmp_path):
    write_text(tmp_path / "stage.json", "{}")
    with outputs.hold(tmp_path, "parent"):
        reader, writer = os.pipe()
        if not (child := os.fork()):
            with atomic_path(tmp_path / "part") as path:
                os.write(writer, str(path.parent).encode())
                time.sleep(60)
        temporary = Path(os.read(reader, 1000).decode())
        os.close(reader)
        os.close(writer)
        assert len(list(tmp_path.glob("*.journal"))) == 1
    assert temporary.is_dir()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with outputs.hold(tmp_path, "next"):
        pass
    assert sorted(content(tmp_path)) in (["stage.json"], [".memtax", "stage.json"])


def test_foreign_files_in_a_directory_survive_its_replacement_and_stale_ones_do_not(tmp_path):
    target = tmp_path / "dataset"
    with atomic_directory(target) as temporary:
        make(temporary, ("README.md", "old/train.parquet"))
    make(target, ("notes.md", "old/mine.txt", ".git/config"))
    (target / "link").symlink_to("notes.md")
    (target / "empty").mkdir()
    for _ in range(2):
        with atomic_directory(target) as temporary:
            make(temporary, ("README.md", "new/train.parquet"))
    expected = {"README.md", "new/train.parquet", "notes.md", "old/mine.txt", ".git/config", "link", outputs.LISTING}
    assert content(target).keys() == expected
    assert (target / "link").is_symlink()
    assert (target / "empty").is_dir()


def test_temporary_names_fit_where_the_file_fits(tmp_path):
    name = "ä" * 120
    with atomic_path(tmp_path / name) as path:
        path.write_text("x")
    assert os.listdir(tmp_path) == [name]
    assert journal.is_temporary(path.parent.name)


def test_files_that_no_list_names_are_not_lost_when_a_directory_is_replaced(tmp_path):
    folder = tmp_path / "figures"

    def replace(name):
        with atomic_directory(folder) as temporary:
            (temporary / name).write_text(name)

    replace("a.png")
    (folder / "mine.txt").write_text("mine")
    replace("b.png")
    assert sorted(path.name for path in folder.iterdir() if path.name[0] != ".") == ["b.png", "mine.txt"]
    for damaged in ("[", '"b.png"', "[1]", "{}"):
        (folder / outputs.LISTING).write_text(damaged)
        with pytest.raises(MemtaxError, match=r"and contains mine\.txt; move what you need"):
            replace("b.png")
        assert (folder / "mine.txt").read_text() == "mine"
    (folder / "mine.txt").unlink()
    replace("b.png")


def test_a_script_holds_its_output_to_its_end(tmp_path, monkeypatch):
    monkeypatch.delenv(journal.INHERITED, raising=False)
    other = f"from memtax import outputs; outputs.hold({str(tmp_path / 'out')!r}, 'x').__enter__()"

    def tried():
        return subprocess.run(
            [sys.executable, "-c", other],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )

    outputs.hold_late(tmp_path / "out", "train")  # Outside of `holding`: nothing.
    assert not (tmp_path / "out").exists()
    with outputs.holding():
        outputs.hold_late(tmp_path / "out", "train")
        outputs.hold_late(tmp_path / "out", "train")
        monkeypatch.delenv(journal.INHERITED)
        assert "in use by" in tried().stderr
        monkeypatch.setenv(journal.INHERITED, str(tmp_path / "out"))
        write_text(tmp_path / "out" / "model", "weights")
    assert tried().returncode == 0
    make(tmp_path / "home")
    with outputs.holding(), pytest.raises(MemtaxError, match="not memtax's"):
        outputs.hold_late(tmp_path / "home", "train")


MOUNTED = """\
import subprocess, sys
from memtax import outputs
from memtax.errors import MemtaxError
subprocess.run(["mount", "--bind", sys.argv[1], sys.argv[2]], check=True)
try:
    with outputs.hold(sys.argv[3], "second"):
        print("held")
except MemtaxError as error:
    print(error)
"""


def can_mount(folder):
    words = ["unshare", "--mount", "mount", "--bind", str(folder), str(folder)]
    return shutil.which("unshare") is not None and subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("source", "point", "held", "wanted"),
    [
        ("out", "elsewhere", "out", "elsewhere"),
        ("out/inner", "elsewhere", "out", "elsewhere/deep"),
        ("out/inner", "elsewhere", "out/inner/deep", "elsewhere"),
        ("elsewhere", "out/inner", "out", "elsewhere/deep"),
        ("elsewhere", "out/inner", "elsewhere/deep", "out"),
        ("out/inner", "elsewhere", "out/other", None),
    ],
)
def test_a_bind_mount_is_no_way_around_a_lock(tmp_path, start, source, point, held, wanted):
    if not can_mount(tmp_path):
        pytest.skip("no right to mount")
    for name in ("out/inner/deep", "elsewhere/deep"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("out/stage.json", "elsewhere/stage.json", "out/inner/stage.json"):
        write_text(tmp_path / name, "{}")
    start(tmp_path / held)
    words = ["unshare", "--mount", sys.executable, "-c", MOUNTED, *(str(tmp_path / name) for name in (source, point))]
    done = subprocess.run(
        [*words, str(tmp_path / (wanted or "elsewhere"))],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert ("in use by" in done.stdout) == (wanted is not None), done
    assert ("held" in done.stdout.split()) == (wanted is None)


def test_a_table_of_mounts_is_read_as_the_kernel_writes_it(tmp_path, monkeypatch):
    (tmp_path / "real out" / "inner").mkdir(parents=True)
    (tmp_path / "name").symlink_to("real out/inner")
    table = tmp_path / "mountinfo"
    place = str(tmp_path).encode()
    table.write_bytes(
        b"27 1 254:0 / / rw - ext4 /dev/vda rw\n"
        + b"30 27 254:0 %s/real\\040out/inner %s/name rw - ext4 /dev/vda rw\n" % (place, place)
        # Another file system, and a line that is cut.
        + b"31 27 0:5 /%s/real\\040out %s rw - tmpfs tmpfs rw\n31 27" % (place, place + b"/other")
    )
    monkeypatch.setattr(mounts, "TABLE", table)
    inner = tmp_path / "real out" / "inner"
    # The name that the second mount gives; here a symlink makes the test of sameness succeed.
    assert mounts.above(inner) == [*reversed(inner.parents)]
    assert tmp_path / "real out" in mounts.above(tmp_path / "name")
    monkeypatch.setattr(mounts, "TABLE", tmp_path / "nowhere")
    assert mounts.above(inner) == [*reversed(inner.parents)]


def test_an_output_whose_parent_cannot_be_written(tmp_path):
    out = tmp_path / "parent" / "out"
    out.mkdir(parents=True)
    (tmp_path / "parent").chmod(0o555)
    code = """\
import ctypes, struct, sys
from pathlib import Path
from memtax.files import atomic_directory, write_text
from memtax.outputs import hold
# Root may write anywhere; without its capabilities it is a user like others.
if sys.platform == "linux":
    ctypes.CDLL(None).capset(struct.pack("Ii", 0x20080522, 0), bytes(24))
out = Path(sys.argv[1])
try:
    (out.parent / "x").touch()
except PermissionError:
    print("not writable")
with hold(out, "count"):
    write_text(out / "a", "a")
    for _ in range(2):
        with atomic_directory(out / "b") as folder:
            (folder / "c").write_text("c")
"""
    words = [sys.executable, "-c", code, str(out)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    finally:
        (tmp_path / "parent").chmod(0o755)
    assert (done.returncode, done.stdout) == (0, "not writable\n"), done.stderr
    assert content(out).keys() == {"a", "b/c", f"b/{outputs.LISTING}", ".memtax"}
