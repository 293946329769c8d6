"""A pytest plugin: appends an event per test to a file, and ends a test that takes too long."""

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from on_gpu.plan import ABSENT

LIMIT = float(os.environ.get("MEMTAX_GPU_LIMIT", "60"))


def _write(**event: Any) -> None:
    with open(os.environ["MEMTAX_GPU_EVENTS"], "a", encoding="utf-8") as file:
        file.write(json.dumps({**event, "file": os.environ["MEMTAX_GPU_FILE"]}) + "\n")


def _stop(*_: object) -> None:
    pytest.fail(f"took more than {LIMIT:.0f} s")


def _absent(text: str) -> str:
    """The message, if a failure is about an optional package that is indeed not installed; else empty."""
    from memtax.extras import EXTRAS

    optional = {module for modules in EXTRAS.values() for module in modules} | {"trl"}
    found = re.findall(r"No module named '([\w]+)", text) + re.findall(r"([\w, ]+), which (?:is|are) not installed", text)
    names = [name.split()[-1] for part in found for name in part.split(",") if name.strip()]
    missing = sorted({name for name in names if name in optional and importlib.util.find_spec(name) is None})
    if "memtax is not installed, so no wheel" in text and not _is_installed():
        missing.append("memtax")
    return f"{', '.join(missing)} not installed" if missing else ""


def _is_installed() -> bool:
    """Whether memtax is, rather than a checkout on the path: a wheel for a Space is made of what is installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return bool(importlib.metadata.version("memtax"))
    return False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: Any) -> Iterator[None]:
    """Set the alarm around every test, its fixtures included."""
    _write(kind="start", test=item.nodeid)
    signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def pytest_runtest_logreport(report: Any) -> None:
    """One event per test: its call, or the phase that failed or was skipped."""
    if report.when == "call" or report.outcome != "passed":
        crash = getattr(report.longrepr, "reprcrash", None)
        line = str(getattr(crash, "message", "") or report.longrepr or "").strip()
        first = " ".join(line.splitlines()[:2])[:300] if report.outcome == "failed" else ""
        outcome = "error" if report.outcome == "failed" and report.when != "call" else report.outcome
        if report.outcome == "failed" and (absent := _absent(str(report.longrepr))):
            outcome, first = ABSENT, absent
        marked = "gpu" in report.keywords
        _write(kind="end", test=report.nodeid, outcome=outcome, message=first, seconds=report.duration, marked=marked)


def pytest_collectreport(report: Any) -> None:
    """A file that cannot be imported."""
    if report.outcome == "failed":
        text = str(report.longrepr).strip()
        absent = _absent(text)
        message = absent or " ".join(text.splitlines()[-1:])[:300]
        _write(kind="end", test=report.nodeid, outcome=ABSENT if absent else "error", message=message, seconds=0)
