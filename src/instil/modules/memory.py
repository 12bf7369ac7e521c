"""Embeddings remembered from step to step: a queue of the last ones, or a bank with one row a sample."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Batch, keyed_uniform


class Memory(nn.Module):
    """Rows of some widths under their names, ``memory["teacher"]`` (size, width), and whose each is: ``owner`` (size,), -1 for nobody's.

    Rows that nobody wrote are random unit vectors, alike in every run and for equal widths. Rows are buffers: they move in an objective's
    ``after_step`` alone.
    """

    owner: Tensor

    def __init__(
        self,
        size: int,
        widths: dict[str, int],
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        self.size, self.names = size, tuple(widths)
        for name, width in widths.items():
            generator = torch.Generator().manual_seed(0)
            self.register_buffer(
                name,
                F.normalize(torch.randn(size, width, generator=generator), dim=1).to(device, dtype),
            )

    def __getitem__(self, name: str) -> Tensor:
        return self.get_buffer(name)

    def draw(self, batch: Batch, number: int) -> Tensor:
        """(N, number) rows for each sample, drawn by (seed, step, index) with replacement, none of them its own where there is another.

        At most as many as there are.
        """
        rows = (keyed_uniform(batch, min(number, self.size)) * self.size).long()
        return torch.where(
            self.owner[rows] == batch["index"][:, None], (rows + 1) % self.size, rows
        )


class Queue(Memory):
    """The last rows, first in, first out; ``groups`` (classes, say) have a queue of ``size / groups`` rows each, one after the other."""

    position: Tensor

    def __init__(
        self,
        size: int,
        widths: dict[str, int],
        groups: int = 1,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(size, widths, device, dtype)
        if size % groups:
            raise ValueError(
                f"a queue of {size} rows cannot be shared out among {groups} groups; size is a multiple of them"
            )
        self.groups, self.length = groups, size // groups
        self.register_buffer("owner", torch.full((size,), -1, device=device))
        self.register_buffer("position", torch.zeros(groups, dtype=torch.int64, device=device))

    def push(self, owner: Tensor, rows: dict[str, Tensor], group: Tensor | None = None) -> None:
        """The rows (M, width) of ``owner`` (M,) take the place of the oldest of their ``group`` (M,); of too many the last ones stay."""
        group = torch.zeros_like(owner) if group is None else group
        count = torch.bincount(group, minlength=self.groups)
        ordered, order = group.sort(stable=True)
        place = (
            torch.arange(len(group), device=group.device) - (count.cumsum(0) - count)[ordered]
        )  # in its own group
        newest = place >= count[ordered] - self.length
        ordered, order, place = ordered[newest], order[newest], place[newest]
        where = ordered * self.length + (self.position[ordered] + place) % self.length
        self.owner[where] = owner[order]
        for name in self.names:
            self[name][where] = rows[name][order].to(self[name].dtype)
        self.position.copy_((self.position + count) % self.length)


class Bank(Memory):
    """One unit row for each sample of the data set, indices 0 ... size - 1."""

    def __init__(
        self,
        size: int,
        widths: dict[str, int],
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(size, widths, device, dtype)
        self.register_buffer("owner", torch.arange(size, device=device))

    def draw(self, batch: Batch, number: int) -> Tensor:
        """As of any memory. Raises ValueError for an index that the bank does not have (on a CPU, where asking does not wait for a device)."""
        index: Tensor | None = batch.get("index")
        if (
            index is not None
            and index.device.type == "cpu"
            and len(index)
            and int(index.max()) >= self.size
        ):
            raise ValueError(
                f"the bank has {self.size} rows and the batch holds index {int(index.max())}; size is the number of samples"
            )
        return super().draw(batch, number)

    def move(self, index: Tensor, rows: dict[str, Tensor], momentum: float = 0.5) -> None:
        """The rows of the samples ``index`` (M,) keep ``momentum`` of themselves, take the rest from ``rows`` (M, width), and have unit length."""
        place = torch.arange(len(index), device=index.device)
        newest = (
            place.new_zeros(self.size).scatter_reduce(0, index, place, "amax")[index] == place
        )  # a sample may come twice in a step
        index = index[newest]
        for name in self.names:
            memory = self[name]
            memory[index] = F.normalize(
                momentum * memory[index] + (1 - momentum) * rows[name][newest].to(memory.dtype),
                dim=1,
            )
