"""The test suite in several processes that share the card; failures are printed as they come."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from on_gpu.plan import ABSENT

ROOT = Path(__file__).resolve().parents[2]
FIRST = (
    "tests/lm",
    "tests/attribution",
    "tests/membership",
    "tests/filters",
    "tests/test_callback.py",
    "tests/paraphrasing",
    "tests/pipeline",
    "tests/metrics",
    "tests/engine",
    "tests/test_score_command.py",
    "tests/test_same_ids.py",
    "tests/jobs",
    "tests/predictor",
    "tests/report",
    "tests",
)
"""Those that put models on the device come first."""
TEST_SECONDS = 90
"""Limit of one test."""
FILE_SECONDS = 150
"""Limit of one file, for a test that cannot be interrupted."""


def test_files(given: list[str] | None) -> list[str]:
    """Test files in order, each once."""
    found: dict[str, None] = {}
    for place in given or FIRST:
        path = ROOT / place.partition("::")[0]
        files = sorted(path.rglob("test_*.py"), key=lambda file: -file.stat().st_size) if path.is_dir() else [place]
        for file in files:
            found[str(file.relative_to(ROOT)) if isinstance(file, Path) else file] = None
    return list(found)


def run_tests(page: Any, given: list[str] | None, environment: dict[str, str], seconds: float, workers: int | None) -> bool:
    """Run the files until the time is over; whether no test failed."""
    if importlib.util.find_spec("pytest") is None:
        page.tests = ["pytest is not installed."]
        page.write()
        return False
    files, started = test_files(given), time.monotonic()
    count = min(workers or min(os.cpu_count() or 1, 12), len(files))
    left, running = list(files), dict[str, tuple[subprocess.Popen[bytes], float]]()
    with tempfile.TemporaryDirectory() as folder:
        events = Path(folder) / "events"
        events.touch()
        record = Record(page, events)
        environment = {**environment, "OMP_NUM_THREADS": "1", "MEMTAX_GPU_EVENTS": str(events)}
        environment["MEMTAX_GPU_LIMIT"] = str(TEST_SECONDS)
        try:
            while left or running:
                over = time.monotonic() - started > seconds
                while left and len(running) < count and not over:
                    file = left.pop(0)
                    running[file] = start(file, environment, folder), time.monotonic()
                time.sleep(0.1)
                record.read()
                for file, (process, since) in list(running.items()):
                    late = time.monotonic() - since > FILE_SECONDS
                    if process.poll() is None and not (late or over):
                        continue
                    if process.poll() is None:
                        end(process)
                        record.cut(file, "the time for the tests is over" if over else f"more than {FILE_SECONDS} s")
                    elif not record.explains(process.returncode, file):
                        record.cut(file, f"pytest ended with {process.returncode}: {last_line(log_of(folder, file))}")
                    del running[file]
                if over:
                    break
        finally:
            for process, _ in running.values():
                end(process)
        record.read()
        record.missed = left
        record.show(time.monotonic() - started, count)
    return not record.failed


def end(process: "subprocess.Popen[bytes]") -> None:
    """Kill a pytest and what it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def start(file: str, environment: dict[str, str], folder: str) -> "subprocess.Popen[bytes]":
    """A pytest for one file."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "on_gpu.reporter", "-p", "no:cacheprovider", "-p", "no:xdist"]
    log = open(log_of(folder, file), "wb")  # noqa: SIM115
    with log:
        return subprocess.Popen(
            [*command, file],
            cwd=ROOT,
            env={**environment, "MEMTAX_GPU_FILE": file},
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def counted(counts: Counter[str]) -> str:
    """The counts in words."""
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))


def log_of(folder: str, file: str) -> Path:
    """Where a pytest's output goes."""
    return Path(folder) / (file.replace("/", "-") + ".log")


def last_line(path: Path) -> str:
    """The last line that is not empty."""
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


class Record:
    """Outcomes so far."""

    def __init__(self, page: Any, events: Path) -> None:
        self.page, self.events, self.place = page, events, 0
        self.counts: Counter[str] = Counter()
        self.marked: Counter[str] = Counter()
        self.failed: list[str] = []
        self.unfinished: list[str] = []
        self.open: dict[str, str] = {}
        self.missed: list[str] = []
        self.seen: set[str] = set()
        self.absent: dict[str, list[str]] = {}

    def read(self) -> None:
        """Take the new events, print failures, and rewrite the page."""
        with open(self.events, "rb") as file:
            file.seek(self.place)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self.place += len(whole)
        for line in whole.splitlines():
            event = json.loads(line)
            self.seen.add(event["file"])
            if event["kind"] == "start":
                self.open[event["test"]] = event["file"]
                continue
            self.open.pop(event["test"], None)
            self.counts[event["outcome"]] += 1
            if event.get("marked"):
                self.marked[event["outcome"]] += 1
            if event["outcome"] == ABSENT:
                print(f"  NOT RUN {event['test']}: {event['message']}", flush=True)
                self.absent.setdefault(event["message"], []).append(event["test"])
            elif event["outcome"] in ("failed", "error"):
                self._fail(event["outcome"], event["test"], event["message"])
        if whole:
            self.show()

    def explains(self, status: int, file: str) -> bool:
        """Whether the file's tests explain the exit status: without pytest there are none, and it is 1 as after a failure."""
        return status in (0, 5) or (status in (1, 2) and file in self.seen)

    def _fail(self, outcome: str, test: str, message: str) -> None:
        print(f"  {outcome.upper()} {test}: {message}", flush=True)
        clean = message.replace("`", "'")
        self.failed.append(f"- {outcome}: `{test}`: `{clean}`" if clean else f"- {outcome}: `{test}`")

    def cut(self, file: str, why: str) -> None:
        """A file whose process was ended; the time limit of all tests is no failure."""
        at = next((test for test, its in self.open.items() if its == file), file)
        self.open.pop(at, None)
        if "is over" in why:
            self.unfinished.append(at)
        else:
            self.counts["error"] += 1
            self._fail("error", at, why)

    def show(self, seconds: float | None = None, workers: int = 0) -> None:
        """Counts and failures into the page."""
        told = counted(self.counts) or "none yet"
        lines = [
            f"{told}{f', in {seconds:.0f} s with {workers} processes' if seconds is not None else ' (so far)'}. Goal: 0 failed."
        ]
        lines += [f"- marked gpu: {counted(self.marked)}"] if self.marked else []
        lines += self.failed
        for why, tests in self.absent.items():
            lines.append(f"- {why}: {len(tests)} tests could not run: {', '.join(f'`{test}`' for test in tests)}")
        if self.unfinished:
            lines.append(f"- stopped when the time was over: {', '.join(f'`{test}`' for test in self.unfinished)}")
        if self.missed:
            lines.append(f"- not begun: {len(self.missed)} files: {', '.join(self.missed)}")
        self.page.tests = lines
        self.page.write()
        if seconds is not None:
            print("  " + lines[0], *(line for line in lines[1:] if line not in self.failed), sep="\n  ", flush=True)
