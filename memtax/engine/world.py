"""Which process this is, and how many there are: one, unless started by `accelerate launch` or `torchrun`."""

import os
from dataclasses import dataclass
from typing import Any


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


def _state() -> Any:
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())
