"""Shared by all tests: nothing may leave this machine, and children must not either."""

import os

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

# The same examples in every run: what fails here fails everywhere. `make fuzz` draws new ones. A slow machine is not a failure.
settings.register_profile("fixed", derandomize=not os.environ.get("MEMTAX_FUZZ"), deadline=None)
settings.load_profile("fixed")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: a proof that takes a minute or more; `make long` runs it")


def pytest_runtest_setup(item):
    if item.get_closest_marker("long") and not os.environ.get("MEMTAX_LONG"):
        pytest.skip("MEMTAX_LONG is not set (make long)")
