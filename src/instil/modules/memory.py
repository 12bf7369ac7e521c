"""Embeddings stored from step to step: a queue of the last ones, or a bank with one per sample."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Batch
from instil.functional.keyed_random import keyed_uniform


class Memory(nn.Module):
    """Stored rows (size, width) of one or more names, as in ``memory["teacher"]``.

    Rows start as random unit vectors, which are the same in every run and for equal widths. Rows
    are buffers. They change only in the ``after_step`` of an objective.

    Args:
        size: number of rows.
        widths: width of the rows of each name.
        device: device of the buffers.
        dtype: dtype of the rows.
    """

    owner: Tensor
    """Sample index of each row (size,); -1 for a row that was not written yet."""

    def __init__(
        self,
        size: int,
        widths: dict[str, int],
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        self.size = size
        self.names = tuple(widths)
        for name, width in widths.items():
            # A generator of its own per name: equal widths get equal rows, whatever ran before.
            generator = torch.Generator().manual_seed(0)
            rows = F.normalize(torch.randn(size, width, generator=generator), dim=1)
            self.register_buffer(name, rows.to(device, dtype))

    def __getitem__(self, name: str) -> Tensor:
        return self.get_buffer(name)

    def draw(self, batch: Batch, count: int, stream: str) -> Tensor:
        """Sample row indices for each sample of a batch, with replacement.

        They depend on (seed, step, sample index). A row of the sample itself is replaced by the
        next row.

        Args:
            batch: batch of the step.
            count: rows per sample, at most ``size``.

        Returns:
            (N, min(count, size)).
        """
        rows = (keyed_uniform(batch, min(count, self.size), stream) * self.size).long()
        is_own = self.owner[rows] == batch["index"][:, None]
        return torch.where(is_own, (rows + 1) % self.size, rows)


class Queue(Memory):
    """First-in, first-out queue of rows, optionally one per group.

    Args:
        size: number of rows.
        widths: width of the rows of each name.
        groups: number of groups, such as classes. Each has ``size / groups`` consecutive rows.
        device: device of the buffers.
        dtype: dtype of the rows.

    Raises:
        ValueError: if ``size`` is not a multiple of ``groups``.
    """

    position: Tensor
    """Next row of each group (groups,), counted from the group's first row."""

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
                f"a queue of {size} rows cannot be shared out among {groups} groups; size is a "
                "multiple of them"
            )
        self.groups = groups
        self.length = size // groups
        self.register_buffer("owner", torch.full((size,), -1, device=device))
        self.register_buffer("position", torch.zeros(groups, dtype=torch.int64, device=device))

    def push(
        self, owner: Tensor | None, rows: dict[str, Tensor], group: Tensor | None = None
    ) -> None:
        """Replace the oldest rows of each group.

        Args:
            owner: sample index of each new row (M,). None: the rows are never drawn by sample, so
                that their owner does not matter; it is set to 0.
            rows: new rows (M, width) of each name. If a group gets more than it holds, the last
                ones stay.
            group: group of each new row (M,). None: the first group.
        """
        if owner is None:
            owner = self.owner.new_zeros(len(rows[self.names[0]]))
        group = torch.zeros_like(owner) if group is None else group
        count = torch.bincount(group, minlength=self.groups)
        ordered, order = group.sort(stable=True)
        first_of_group = count.cumsum(0) - count
        rank = torch.arange(len(group), device=group.device) - first_of_group[ordered]
        newest = rank >= count[ordered] - self.length
        ordered, order, rank = ordered[newest], order[newest], rank[newest]
        slots = ordered * self.length + (self.position[ordered] + rank) % self.length
        self.owner[slots] = owner[order]
        for name in self.names:
            self[name][slots] = rows[name][order].to(self[name].dtype)
        self.position.copy_((self.position + count) % self.length)


class Bank(Memory):
    """Bank with one unit row per sample of the data set, indices 0 ... size - 1.

    Args:
        size: number of samples.
        widths: width of the rows of each name.
        device: device of the buffers.
        dtype: dtype of the rows.
    """

    def __init__(
        self,
        size: int,
        widths: dict[str, int],
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(size, widths, device, dtype)
        self.register_buffer("owner", torch.arange(size, device=device))

    def draw(self, batch: Batch, count: int, stream: str) -> Tensor:
        """Sample row indices for each sample of a batch; see ``Memory.draw``.

        Raises:
            ValueError: if the bank has no row for a sample index. Checked on the CPU only, where
                reading the index does not wait for a device.
        """
        index: Tensor | None = batch.get("index")
        is_readable = index is not None and index.device.type == "cpu" and len(index) > 0
        if index is not None and is_readable and int(index.max()) >= self.size:
            raise ValueError(
                f"the bank has {self.size} rows and the batch holds index {int(index.max())}; size "
                "is the number of samples"
            )
        return super().draw(batch, count, stream)

    def move(self, index: Tensor, rows: dict[str, Tensor], momentum: float = 0.5) -> None:
        """Update rows by a moving average and normalize them.

        Args:
            index: sample indices (M,).
            rows: new rows (M, width) of each name.
            momentum: share of the stored row, in [0, 1].
        """
        order = torch.arange(len(index), device=index.device)
        # A sample may occur twice in a step; its last row counts.
        last = order.new_zeros(self.size).scatter_reduce(0, index, order, "amax")
        newest = last[index] == order
        index = index[newest]
        for name in self.names:
            memory = self[name]
            new = rows[name][newest].to(memory.dtype)
            memory[index] = F.normalize(momentum * memory[index] + (1 - momentum) * new, dim=1)
