"""The positions of a batch that predict a target, known to the host.

Selecting them by a mask on an accelerator would wait for it, in every layer: their number is the shape of the result.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from memtax.lm.scores import sent


def owners(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    """The example of each row, if example i has `lengths[i]` consecutive rows."""
    return sent(np.repeat(np.arange(len(lengths)), lengths), device)


class Targets:
    """The positions of a batch whose next token is a target, in order.

    Attributes:
        mask: (batch, length), whether the next token is a target.
        lengths: number of such positions per example.
        ids: (rows,), the tokens at these positions.
        next_ids: (rows,), the targets, on the device.
        owners: (rows,), the example of each, on the device.
    """

    def __init__(self, ids: npt.NDArray[np.int64], inside: npt.NDArray[np.bool_], device: torch.device) -> None:
        # The last token of a sequence predicts nothing and is not visible to scored positions.
        self.mask = np.zeros_like(inside)
        self.mask[:, :-1] = inside[:, :-1] & inside[:, 1:]
        self.lengths = tuple(self.mask.sum(1).tolist())
        self.ids, self.device = ids[self.mask], device
        self.next_ids = sent(np.roll(ids, -1, 1)[self.mask], device)
        self.owners = owners(self.lengths, device)
        self._sent: dict[tuple[str, torch.device], torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, device: torch.device) -> torch.Tensor:
        """Their places in a flattened batch."""
        return self._once("rows", np.flatnonzero(self.mask), device)

    def of(self, values: torch.Tensor) -> torch.Tensor:
        """Values at these positions, (rows, width), of (batch, length, width)."""
        return values.flatten(0, 1).index_select(0, self.rows(values.device))

    def spread(self, rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """(batch, length, width) as `like`, with these rows at the positions and 0 elsewhere."""
        found = torch.zeros(like.shape, dtype=like.dtype, device=like.device)
        found.view(-1, like.shape[-1]).index_copy_(0, self.rows(like.device), rows.to(like.device, like.dtype))
        return found

    def outside(self, values: torch.Tensor) -> torch.Tensor:
        """Whether any of the values (batch, length, width) at other positions is not 0, as a tensor."""
        return (values.any(-1) & self._once("outside", ~self.mask, values.device)).any()

    def _once(self, name: str, array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
        """The array on a device, sent there at the first use."""
        if (name, device) not in self._sent:
            self._sent[name, device] = sent(array, device)
        return self._sent[name, device]
