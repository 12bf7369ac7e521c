"""Memory of generated samples, kept from step to step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instil.core import Batch
from instil.functional.keyed_random import keyed_uniform


class SyntheticMemory(nn.Module):
    """First-in, first-out memory of the last ``size`` generated samples.

    A sample has one row in each named buffer. Rows change in a scheme's ``after_step`` only, and
    checkpoints contain them.

    Args:
        size: number of samples.
        **examples: arguments of ``allocate``. Without them the memory has no buffers yet.
    """

    pushed: Tensor

    def __init__(self, size: int, **examples: Tensor):
        super().__init__()
        self.size = size
        self.names: tuple[str, ...] = ()
        if examples:
            self.allocate(**examples)

    def allocate(self, **examples: Tensor) -> None:
        """Register the buffers.

        Args:
            **examples: for each name, a batch of rows (N, ...) with the shape, type and device of
                the buffer.
        """
        self.names = tuple(examples)
        for name, rows in examples.items():
            self.register_buffer(
                name, torch.zeros_like(rows[:1].expand(self.size, *rows.shape[1:]))
            )
        device = next(iter(examples.values())).device
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64, device=device))

    def __getitem__(self, name: str) -> Tensor:
        return self.get_buffer(name)

    @property
    def filled(self) -> Tensor:
        """Number of rows in use, a scalar."""
        return self.pushed.clamp_max(self.size)

    def draw(self, batch: Batch, stream: str) -> dict[str, Tensor]:
        """Sample one row for each sample of a batch, with replacement.

        Args:
            batch: the batch; the draws depend on its (seed, step, index).
            stream: name of the random stream.

        Returns:
            Rows (N, ...) of each name; zeros while the memory is empty.
        """
        rows = (keyed_uniform(batch, 1, stream).squeeze(1) * self.filled).long()
        return {name: self[name][rows] for name in self.names}

    def shared_rows(
        self, batch: Batch, num_rows: int, stream: str
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Consecutive rows from a random start, the same for all samples and ranks.

        Args:
            batch: the batch; the start depends on its (seed, step).
            num_rows: number of rows, at most the size of the memory.
            stream: name of the random stream.

        Returns:
            Rows (M, ...) of each name, all different, and a mask (M,) of the rows in use.
        """
        num_rows = min(num_rows, self.size)
        keys = {key: batch[key] for key in ("seed", "step") if key in batch}
        # One index for all samples gives the same start on every rank.
        index = torch.zeros(1, dtype=torch.int64, device=self.pushed.device)
        start = keyed_uniform(keys | {"index": index}, 1, stream).view(()) * self.filled
        offset = torch.arange(num_rows, device=self.pushed.device)
        rows = (start.long() + offset) % self.filled.clamp_min(1)
        return {name: self[name][rows] for name in self.names}, offset < self.filled

    def push(self, **rows: Tensor) -> None:
        """Replace the oldest rows.

        Args:
            **rows: rows (M, ...) of every name. If M exceeds the size, the last rows stay.
        """
        num_rows = len(next(iter(rows.values())))
        first = max(num_rows - self.size, 0)
        offset = torch.arange(first, num_rows, device=self.pushed.device)
        targets = (self.pushed + offset) % self.size
        for name in self.names:
            self[name][targets] = rows[name][first:].to(self[name].dtype)
        self.pushed += num_rows
