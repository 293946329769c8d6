"""Every model of a run of tests is on the stand-in device: `PYTHONPATH=.:tests pytest -p helpers.all_away tests/...`.

What tests start as further processes stays on the CPU.
"""

import pytest
import torch

from helpers import away

_moved = [0]


@pytest.fixture(autouse=True, scope="session")
def stand_in():
    """The device of this process is the stand-in."""
    from memtax.lm import loading, resident

    to = torch.nn.Module.to

    def moved(module, *arguments, **options):
        if arguments[:1] != (away.DEVICE,):
            return to(module, *arguments, **options)
        _moved[0] += 1
        return away.move(module)

    with pytest.MonkeyPatch.context() as patch, away.device():
        for module in (loading, resident):
            patch.setattr(module, "process_device", lambda: away.DEVICE)
        patch.setattr(torch.nn.Module, "to", moved)
        yield


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"{_moved[0]} models were on the stand-in device")
