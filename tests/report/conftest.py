"""A run directory for the tests of this folder."""

import pytest

from helpers.report_run import make_run


@pytest.fixture
def run_directory(tmp_path):
    return make_run(tmp_path / "run")
