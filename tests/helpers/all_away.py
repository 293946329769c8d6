"""Every model of a run of tests is on the stand-in device: `PYTHONPATH=.:tests pytest -p helpers.all_away tests/...`.

What tests start as further processes stays on the CPU.
"""

import contextlib

import pytest
import safetensors
import torch

from helpers import away

_moved = [0]


@pytest.fixture(autouse=True, scope="session")
def stand_in():
    """The device of this process is the stand-in."""
    from memtax.lm import loading, placement, resident

    to = torch.nn.Module.to

    def moved(module, *arguments, **options):
        if arguments[:1] != (away.DEVICE,):
            return to(module, *arguments, **options)
        _moved[0] += 1
        return away.move(module)

    with pytest.MonkeyPatch.context() as patch, away.device():
        for module in (loading, placement, resident):
            patch.setattr(module, "process_device", lambda: away.DEVICE)
        patch.setattr(torch.nn.Module, "to", moved)
        patch.setattr(safetensors, "safe_open", _opening(safetensors.safe_open))
        yield


class _File:
    """A file of tensors that are put on the stand-in device, whose type safetensors does not know."""

    def __init__(self, file):
        self.metadata, self.keys, self._file = file.metadata, file.keys, file

    def get_tensor(self, name):
        return self._file.get_tensor(name).to(away.DEVICE)


def _opening(plain):
    @contextlib.contextmanager
    def safe_open(path, framework, device="cpu"):
        on_device = device == str(away.DEVICE)
        with plain(path, framework, device="cpu" if on_device else device) as file:
            yield _File(file) if on_device else file

    return safe_open


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"{_moved[0]} models were on the stand-in device")
