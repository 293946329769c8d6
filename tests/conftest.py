"""Shared by all tests: nothing may leave this machine, and children must not either."""

import gc
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_EVALUATE_OFFLINE", "1")
os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Asking whether there is a GPU must not keep processes that are forked later from using it.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
# The workers share the cores: with threads of their own, each would wait, spinning, for cores that the others have.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

import memtax  # noqa: F401 - before PyTorch's first matrix product, which some versions of transformers compute when imported

# The same examples in every run: what fails here fails everywhere. `make fuzz` draws new ones. A slow machine is not a failure.
settings.register_profile("fixed", derandomize=not os.environ.get("MEMTAX_FUZZ"), deadline=None)
settings.load_profile("fixed")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: a proof that takes a minute or more; `make long` runs it")


def pytest_collection_finish(session):
    # The libraries, imported by now, stay: no collection (a Trainer starts one per training) has to look at them.
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item):
    if item.get_closest_marker("long") and not os.environ.get("MEMTAX_LONG"):
        pytest.skip("MEMTAX_LONG is not set (make long)")


DRAWN = ("report", "filters/test_code_vs_nl.py", "predictor/test_dataset_tables.py", "hub/test_pushed_figures.py")
"""Tests that look at figures. Elsewhere drawing takes most of the time of a small run."""


@pytest.fixture(autouse=True, scope="module")
def precision():
    """In older versions of Accelerate a Trainer takes over the precision of another that ran in the process."""
    yield
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)
    if (state := sys.modules.get("accelerate.state")) is not None:
        state.AcceleratorState._reset_state()


@pytest.fixture(autouse=True, scope="module")
def drawings(request):
    """Figures of runs whose tests do not look at them are empty."""
    path = Path(request.path).relative_to(Path(__file__).parent).as_posix()
    if path.startswith(DRAWN):
        yield
        return
    from memtax.report import saving

    empty = '<svg xmlns="http://www.w3.org/2000/svg" width="1pt" height="1pt" viewBox="0 0 1 1"></svg>'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "titled", lambda drawn, title: saving.Files(empty, b"", empty))
        yield
