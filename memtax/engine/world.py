"""Rank of this process and number of processes: one, unless started by `accelerate launch` or `torchrun`."""

import atexit
import contextlib
import importlib.util
import os
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

_PATIENCE = timedelta(days=7)
_TOGETHER: ContextVar[bool] = ContextVar("together", default=False)


@dataclass(frozen=True)
class World:
    """This process, number `rank` (from 0) among the `size` processes that share the rows.

    Attributes:
        rank: number of the process.
        size: number of processes.
        process: number of the process among those that compute the same rows together (see `together`), where rank is 0 and
            size 1; None if the processes share the rows.
    """

    rank: int
    size: int
    process: int | None = None

    @classmethod
    def current(cls) -> "World":
        """The world of this process. With several processes, this initializes the Accelerate state (gloo on CPUs)."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls(0, 1)
        state = _state()
        return cls(0, 1, state.process_index) if is_together() else cls(state.process_index, state.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this process merges, writes records and reports."""
        return self.rank == 0 and not self.process

    @property
    def writes(self) -> bool:
        """Whether this process writes the rows that it computes."""
        return not self.process

    def wait(self) -> None:
        """Return once every process has called this."""
        if self.size > 1 or self.process is not None:
            _state().wait_for_everyone()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Let all processes compute the same rows, each with a part of every layer (tensor parallelism); the first one writes."""
    before = _TOGETHER.set(True)
    try:
        yield
    finally:
        _TOGETHER.reset(before)


def is_together() -> bool:
    """Whether several processes compute the same rows."""
    return _TOGETHER.get() and int(os.environ.get("WORLD_SIZE", "1")) > 1


def spare_threads() -> None:
    """Use one thread in worker processes of `Dataset.map(num_proc=...)`.

    A forked worker would wait forever for its parent's thread pool, and there is already one worker per core.
    """
    import multiprocess  # type: ignore[import-untyped]

    if multiprocess.parent_process() is None or importlib.util.find_spec("torch") is None:
        return
    import torch

    if torch.get_num_threads() > 1:
        torch.set_num_threads(1)


def device() -> Any:
    """The device of this process among several: Accelerate's, or a card shared with others if there are too few."""
    import torch

    state = _state()
    if use_cpu() or state.device.type != "cpu":
        return state.device
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def use_cpu() -> bool:
    """Whether there is no CUDA device, or `ACCELERATE_USE_CPU` asks not to use it."""
    import torch

    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on")
    return asked or not torch.cuda.is_available()


def _state() -> Any:
    import torch
    from accelerate import PartialState

    # NCCL does not accept two processes on one card; gloo, which is used with `cpu=True`, does.
    shared = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1"))) > torch.cuda.device_count()
    # One process may work for hours while the others wait; if it dies, the launcher ends the others. NCCL's default timeout is
    # ten minutes.
    state = PartialState(cpu=use_cpu() or shared, timeout=_PATIENCE)
    _part_at_exit()
    return state


@cache
def _part_at_exit() -> None:
    """End the process group before the interpreter shuts down.

    A gloo thread that releases a collective's tensors acquires the interpreter's lock. During interpreter shutdown this aborts
    the process ("terminate called without an active exception"), and the launcher reports finished work as failed. Ending the
    group waits for its threads, unless a wrapped model of the caller still holds it; the pause lets those finish too.
    """
    import torch.distributed

    def part() -> None:
        if torch.distributed.is_initialized():
            time.sleep(0.1)
            torch.distributed.destroy_process_group()

    atexit.register(part)
