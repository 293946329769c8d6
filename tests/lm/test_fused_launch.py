"""How the kernel for logits is launched; without Triton and without a GPU."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from memtax.lm import fused
from memtax.lm.reduction import Wanted


class Launches:
    """In place of the kernel: notes what is current when it is launched."""

    def __init__(self, current):
        self.current, self.seen = current, []

    def __getitem__(self, grid):
        return lambda *arguments, **constants: self.seen.append((grid, list(self.current)))


def test_the_kernel_is_launched_with_the_device_of_its_tensors_as_the_current_one(monkeypatch):
    current = []

    @contextlib.contextmanager
    def on(device):
        current.append(device)
        yield
        current.pop()

    launches = Launches(current)
    monkeypatch.setattr(fused, "_kernel", launches, raising=False)
    monkeypatch.setattr(fused, "triton", SimpleNamespace(next_power_of_2=lambda number: number))
    monkeypatch.setattr(fused, "_on", on)
    fused.reduce_rows(torch.zeros(3, 5), torch.zeros(3, dtype=torch.int64), Wanted())
    assert launches.seen == [((3,), [torch.device("cpu")])]


def test_every_card_is_made_the_current_one(monkeypatch):
    entered = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: entered.append(device) or contextlib.nullcontext())
    with fused._on(torch.device("cuda", 1)):
        pass
    assert entered == [torch.device("cuda", 1)]


def test_a_first_batch_that_does_not_fit_does_not_switch_the_kernel_off(monkeypatch):
    tried = []

    def full(*arguments):
        tried.append(arguments)
        raise torch.OutOfMemoryError("CUDA out of memory")

    for name in ("arange", "tensor"):
        on_cpu = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *values, device, make=on_cpu: make(*values))
    monkeypatch.setattr(fused, "triton", SimpleNamespace())
    monkeypatch.setattr(fused, "reduce_rows", full)
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            fused.usable(torch.device("cuda", 7))
    assert len(tried) == 2
