"""Which process this is, and how many there are: one, unless started by `accelerate launch` or `torchrun`."""

import atexit
import os
import time
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class World:
    """This process, number `rank` (from 0) among `size` processes."""

    rank: int
    size: int

    @classmethod
    def current(cls) -> "World":
        """The world of this process. With several processes the Accelerate state is set up (gloo on CPUs)."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls(0, 1)
        state = _state()
        return cls(state.process_index, state.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this process merges, writes records and reports."""
        return self.rank == 0

    def wait(self) -> None:
        """Return once every process has come here."""
        if self.size > 1:
            _state().wait_for_everyone()


def spare_threads() -> None:
    """One thread in the worker processes of `Dataset.map(num_proc=...)`.

    A forked worker would wait forever for the thread pool of its parent; and there is a worker for each core already.
    """
    import multiprocess  # type: ignore[import-untyped]
    import torch

    if multiprocess.parent_process() is not None and torch.get_num_threads() > 1:
        torch.set_num_threads(1)


def device() -> Any:
    """The device that Accelerate gives this process among several."""
    return _state().device


def _state() -> Any:
    import torch
    from accelerate import PartialState

    # One process may work for hours while the others wait; if it ends, the launcher ends them. NCCL would give up after ten
    # minutes.
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)
    _part_at_exit()
    return state


@cache
def _part_at_exit() -> None:
    """Have the process group ended before the interpreter goes.

    A thread of gloo's that lets go of a collective's tensors takes the interpreter's lock. When the interpreter is already
    going, that aborts the process ("terminate called without an active exception"), and the launcher reports work that was
    done as failed. Ending the group waits for its threads, unless a wrapped model of the caller still holds it; the pause
    lets those finish too.
    """
    import torch.distributed

    def part() -> None:
        if torch.distributed.is_initialized():
            time.sleep(0.1)
            torch.distributed.destroy_process_group()

    atexit.register(part)
