"""The processor: how PyTorch's matrix products are made reproducible on it."""

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


def ask_for_reproducible_products() -> None:
    """Make MKL's sums independent of the number of threads, unless `MKL_CBWR` is set already.

    By default it cuts the sums of some products among threads, so that the rounding depends on their number. It reads the
    variable at its first product. That costs nothing on Intel's processors (benchmarks/reproducible.py); on others MKL would
    take slow kernels.
    """
    if is_intel():
        os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
