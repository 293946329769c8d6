"""The tests and the measurements that need a GPU, in one run of at most nine minutes.

    PYTHONPATH=. python benchmarks/gpu.py                # on a machine with a CUDA device; also: make gpu
    python benchmarks/gpu.py --smoke                     # tiny sizes, on the CPU: checks this script itself
    python benchmarks/gpu.py --only tests                # or the names of some rows; --list prints them

From a bare checkout, without installation, network, Java or downloaded models. First the tests run in several processes; the
names of failures are printed as they come. Then each row runs in a process of its own, with a time limit. Both write
`benchmarks/results/gpu.md` as results come in, so that a run that is cut off keeps what it has. A check and a part of a run
write `build/gpu.md` instead, which replaces no results.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from on_gpu.plan import ROWS, Row, Size  # noqa: E402

RESULTS = HERE / "results" / "gpu.md"
PARTS = HERE.parent / "build" / "gpu.md"
PREFIX = "@row "
READY = "@ready"
IMPORT_SECONDS = 90
"""Limit for the imports of a row, which are not part of its time."""


def environment() -> dict[str, str]:
    """Variables of all child processes: this checkout, no network, and one thread per process unless set otherwise."""
    paths = [str(HERE), str(HERE.parent), str(HERE.parent / "tests"), os.environ.get("PYTHONPATH", "")]
    fixed = {"HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    fixed["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    return {**os.environ, **fixed, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def machine() -> list[str]:
    """Card, versions, date and revision."""
    import torch

    card = torch.cuda.get_device_name() if torch.cuda.is_available() else f"no GPU; {os.cpu_count()} cores"
    memory = f", {torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB" if torch.cuda.is_available() else ""
    versions = f"torch {torch.__version__}, Python {sys.version.split()[0]}"
    for package in ("transformers", "triton"):
        try:
            versions += f", {package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            versions += f", {package} not installed"
    revision = ""
    if shutil.which("git"):
        asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE, check=False)
        revision = f", revision {asked.stdout.strip()}" if asked.returncode == 0 else ""
    return [f"{card}{memory}; {versions}; {time.strftime('%Y-%m-%d')}{revision}."]


def lines_of(text: str) -> list[str]:
    """Lines that are not empty."""
    return [line for line in text.splitlines() if line.strip()]


class Page:
    """`gpu.md`, rewritten after every result."""

    def __init__(self, path: Path, about: list[str]) -> None:
        self.path, self.about = path, about
        self.tests: list[str] = []
        self.rows: list[str] = []

    def write(self) -> None:
        """Write everything known so far, in one step."""
        head = "| row | what | measured | goal |\n|---|---|---:|---:|"
        parts = ["# On a GPU", *self.about]
        parts += ["## Tests", "\n".join(self.tests)] if self.tests else []
        parts += ["## Measurements", "\n".join([head, *self.rows])] if self.rows else []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
        partial.replace(self.path)

    def row(self, name: str, what: str, measured: str, goal: str = "") -> None:
        """Add and print one line of the table."""
        cells = [text.replace("|", "\\|").replace("\n", " ") for text in (name, what, measured, goal)]
        print("  " + " | ".join(cells), flush=True)
        self.rows.append(f"| {' | '.join(cells)} |")
        self.write()


class Child:
    """A process for one row, which has imported the libraries before it may begin."""

    def __init__(self, row: Row, smoke: bool) -> None:
        command = [sys.executable, str(HERE / "gpu.py"), "--row", row.name, *(["--smoke"] if smoke else [])]
        self.row, self.lines = row, queue.Queue[str | None]()
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=environment(),
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def begin(self, left: float) -> None:
        """Wait for its imports, at most so many seconds, and let it measure; its time counts from here."""
        until, line = time.monotonic() + min(left, IMPORT_SECONDS), ""
        with contextlib.suppress(queue.Empty):
            while line is not None and line != READY + "\n":
                line = self.lines.get(timeout=max(until - time.monotonic(), 0.01))
        if line is None:  # It failed; `follow` reports that.
            self.lines.put(None)
        assert self.process.stdin is not None
        try:
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # It failed already; `follow` reports that.

    def follow(self, page: Page, limit: float) -> bool:
        """Write its lines as they come; whether it ended well."""
        until = time.monotonic() + limit
        while True:
            try:
                line = self.lines.get(timeout=max(until - time.monotonic(), 0.01))
            except queue.Empty:
                self.end()
                page.row(self.row.name, "stopped at its time limit", f"{limit:.0f} s")
                return False
            if line is None:
                break
            if line.startswith(PREFIX):
                page.row(self.row.name, *json.loads(line[len(PREFIX) :]))
        if self.process.wait() == 0:
            return True
        self.errors.seek(0)
        text = self.errors.read()
        print(text[-4000:], flush=True)
        status = self.process.returncode
        last = [f"ended by {signal.Signals(-status).name}"] if status < 0 else lines_of(text)[-1:]
        page.row(self.row.name, "failed", (last or [f"exit status {status}"])[0][:200])
        return False

    def end(self) -> None:
        """Kill it and what it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def run_rows(rows: list[Row], page: Page, smoke: bool, deadline: float) -> bool:
    """Run each row until the deadline; the next one's process imports its libraries meanwhile."""
    good = True
    waiting = Child(rows[0], smoke) if rows else None
    for number, row in enumerate(rows):
        child, waiting = waiting, None
        assert child is not None
        left = deadline - time.monotonic()
        if left < 5:
            child.end()
            for missed in rows[number:]:
                page.row(missed.name, "not run: the time is over", "")
            return False
        print(f"{row.name} (at most {min(row.seconds, left):.0f} s)", flush=True)
        try:
            child.begin(left)
            if number + 1 < len(rows):
                waiting = Child(rows[number + 1], smoke)
            good &= child.follow(page, max(min(row.seconds, deadline - time.monotonic()), 0))
        except BaseException:
            if waiting is not None:
                waiting.end()
            raise
        finally:
            child.end()
    return good


def default_output(part: bool) -> Path:
    """Where the page goes: a check, or a part of a run, must not replace the results of a whole run."""
    return PARTS if part else RESULTS


def run_row(name: str, smoke: bool) -> None:
    """In the child: import, wait for the word, then print each result as a line."""
    row = next(row for row in ROWS if row.name == name)
    function: Any = getattr(importlib.import_module(f"on_gpu.{row.module}"), row.function)
    print(READY, flush=True)
    if not sys.stdin.readline():
        raise SystemExit("the process that started this one has ended")
    import torch

    if not torch.cuda.is_available() and not smoke:
        raise SystemExit("no CUDA device")
    for result in function(Size(smoke), *row.arguments):
        print(PREFIX + json.dumps(list(map(str, result))), flush=True)


def main() -> None:
    """Run what was asked for; exit status 1 if a test or a row failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, on the CPU if there is no GPU")
    parser.add_argument("--only", default="", help="tests, rows, or names of rows, separated by commas")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    parser.add_argument("--minutes", type=float, default=8.8, help="time for everything")
    parser.add_argument("--test-minutes", type=float, default=2.7, help="time for the tests, out of all")
    parser.add_argument("--tests", nargs="*", help="test files or folders instead of all, the first ones first")
    parser.add_argument("--workers", type=int, help="processes for the tests; default: one per core, at most 12")
    parser.add_argument("--output", type=Path, help=f"default: {RESULTS.relative_to(HERE.parent)}, or for a part build/gpu.md")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        run_row(arguments.row, arguments.smoke)
        return
    if arguments.list:
        print("\n".join(row.name for row in ROWS))
        return
    # `timeout` and schedulers end a run so: the processes started here end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    started = time.monotonic()
    chosen = {name for name in arguments.only.split(",") if name}
    unknown = chosen - {"tests", "rows", *(row.name for row in ROWS)}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; --list prints the names")
    about = machine()
    if about[0].startswith("no GPU") and not arguments.smoke:
        print("there is no CUDA device; --smoke checks this script on the CPU")
        return
    part = bool(arguments.smoke or chosen or arguments.tests)
    page, good = (
        Page(
            arguments.output or default_output(part),
            [*about, *(["Tiny sizes: a check of the script."] if arguments.smoke else [])],
        ),
        True,
    )
    print(page.about[0], flush=True)
    if not chosen or "tests" in chosen:
        from on_gpu import testing

        seconds = 60 * min(arguments.test_minutes, arguments.minutes)
        files = ["tests/lm/test_gpu.py"] if arguments.smoke and arguments.tests is None else arguments.tests
        good &= testing.run_tests(page, files, environment(), seconds, arguments.workers)
    rows = [row for row in ROWS if not chosen or "rows" in chosen or row.name in chosen]
    good &= run_rows(rows, page, arguments.smoke, started + 60 * arguments.minutes)
    page.about.append(f"All of it took {time.monotonic() - started:.0f} s.")
    page.write()
    print(f"{page.about[-1]} {page.path}")
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
