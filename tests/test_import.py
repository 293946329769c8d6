import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "datasets", "pyarrow", "sklearn", "numba", "evaluate", "matplotlib")


@pytest.mark.parametrize("module", ["memtax", "memtax.cli"])
def test_importing_the_package_and_its_command_loads_nothing_heavy(module):
    program = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_there():
    import memtax

    for name in memtax.__all__:
        assert getattr(memtax, name)
    with pytest.raises(AttributeError, match="no_such_name"):
        memtax.no_such_name  # noqa: B018


def test_python_m_memtax_is_the_command():
    done = subprocess.run([sys.executable, "-m", "memtax", "--help"], capture_output=True, text=True, check=True)
    for verb in ("demo", "run", "report", "env"):
        assert verb in done.stdout
