"""A run directory for the tests of this folder."""

import pytest

from helpers.pushed_run import make_run


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))
