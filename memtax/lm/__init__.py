"""Scoring sequences with a causal language model: the forward pass and everything computed from it."""

import os
import platform
from pathlib import Path


def is_intel() -> bool:
    """Whether the processor is Intel's."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            return any(line.startswith("vendor_id") and "GenuineIntel" in line for line in lines)
    except OSError:
        return "GenuineIntel" in platform.processor()


# MKL cuts the sums of some matrix products among threads, so that the rounding depends on their number. It reads this at its
# first product. It costs nothing on Intel's processors (benchmarks/reproducible.py); on others MKL would take slow kernels.
if is_intel():
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
