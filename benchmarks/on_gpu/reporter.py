"""A pytest plugin: appends an event per test to a file, and ends a test that takes too long."""

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

LIMIT = float(os.environ.get("MEMTAX_GPU_LIMIT", "60"))


def _write(**event: Any) -> None:
    with open(os.environ["MEMTAX_GPU_EVENTS"], "a", encoding="utf-8") as file:
        file.write(json.dumps(event) + "\n")


def _stop(*_: object) -> None:
    pytest.fail(f"took more than {LIMIT:.0f} s")


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
        _write(kind="end", test=report.nodeid, outcome=outcome, message=first, seconds=report.duration)


def pytest_collectreport(report: Any) -> None:
    """A file that cannot be imported."""
    if report.outcome == "failed":
        lines = str(report.longrepr).strip().splitlines()
        _write(kind="end", test=report.nodeid, outcome="error", message=" ".join(lines[-1:])[:300], seconds=0)
