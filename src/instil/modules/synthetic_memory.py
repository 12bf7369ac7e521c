"""Images that a scheme made, remembered from step to step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instil.core import Batch, keyed_uniform


class SyntheticMemory(nn.Module):
    """The last ``size`` made images, first in, first out, with what else is known of each: rows of equal number under their names.

    Rows are buffers: they move in a scheme's ``after_step`` alone, and a checkpoint holds them.
    """

    pushed: Tensor

    def __init__(self, size: int, **like: Tensor):
        """``like``: of each name a batch of rows (N, ...), of which shape, type and device are taken."""
        super().__init__()
        self.size, self.names = size, tuple(like)
        for name, rows in like.items():
            self.register_buffer(name, torch.zeros_like(rows[:1].expand(size, *rows.shape[1:])))
        self.register_buffer(
            "pushed", torch.zeros((), dtype=torch.int64, device=next(iter(like.values())).device)
        )

    def __getitem__(self, name: str) -> Tensor:
        return self.get_buffer(name)

    @property
    def filled(self) -> Tensor:
        """How many rows there are, a scalar."""
        return self.pushed.clamp_max(self.size)

    def draw(self, batch: Batch, stream: str) -> dict[str, Tensor]:
        """One row for each sample, drawn by (seed, step, index) with replacement; zeros where nothing was pushed yet."""
        rows = (keyed_uniform(batch, 1, stream).squeeze(1) * self.filled).long()
        return {name: self[name][rows] for name in self.names}

    def shared_rows(
        self, batch: Batch, number: int, stream: str
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Different rows, at most ``number``, alike for all samples and ranks, beginning at a place drawn by (seed, step); and which there are."""
        number = min(number, self.size)
        clock = {key: batch[key] for key in ("seed", "step") if key in batch}
        index = torch.zeros(1, dtype=torch.int64, device=self.pushed.device)
        begin = keyed_uniform(clock | {"index": index}, 1, stream).view(()) * self.filled
        place = torch.arange(number, device=self.pushed.device)
        rows = (begin.long() + place) % self.filled.clamp_min(1)
        return {name: self[name][rows] for name in self.names}, place < self.filled

    def push(self, **rows: Tensor) -> None:
        """Rows (M, ...) of every name take the place of the oldest; of too many the last ones stay."""
        number = len(next(iter(rows.values())))
        first = max(number - self.size, 0)
        where = (self.pushed + torch.arange(first, number, device=self.pushed.device)) % self.size
        for name in self.names:
            self[name][where] = rows[name][first:].to(self[name].dtype)
        self.pushed += number
