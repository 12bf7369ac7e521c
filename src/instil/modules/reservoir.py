"""Memory of a uniform random choice of all rows that it has seen."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.functional.keyed_random import keyed_uniform


class Reservoir(nn.Module):
    """Reservoir sampling of rows (Vitter 1985): every row seen so far is stored equally likely.

    The entries are buffers, which are part of a checkpoint. The choice depends only on the number
    of rows seen before.

    Args:
        size: number of stored rows.
    """

    seen: Tensor

    def __init__(self, size: int):
        super().__init__()
        self.size = size
        self.keys: tuple[str, ...] = ()
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def build(self, rows: Mapping[str, Tensor]) -> None:
        """Make an empty memory for rows of these shapes.

        Args:
            rows: name -> (N, ...).
        """
        self.keys = tuple(rows)
        for key, value in rows.items():
            empty = torch.zeros(self.size, *value.shape[1:], dtype=value.dtype, device=value.device)
            self.register_buffer(f"stored_{key}", empty)
        self.seen = self.seen.to(next(iter(rows.values())).device)

    def content(self) -> dict[str, Tensor]:
        """Return copies of all entries and ``seen`` on the CPU."""
        entries = {key: getattr(self, f"stored_{key}") for key in self.keys} | {"seen": self.seen}
        return {key: value.detach().cpu().clone() for key, value in entries.items()}

    def fill(self, content: Mapping[str, Tensor]) -> None:
        """Take over the rows of an earlier memory; vectors may have become longer.

        Args:
            content: result of ``content``.

        Raises:
            ValueError: for rows of another number, shape or name.
        """
        if set(content) != {*self.keys, "seen"}:
            raise ValueError(
                f"memory: has the entries {', '.join(sorted(content))}. Expected those of the "
                f"batches: {', '.join(self.keys)}, seen"
            )
        for key in self.keys:
            stored = getattr(self, f"stored_{key}")
            old = content[key].to(stored)
            if old.ndim == 2 and old.shape[1] < stored.shape[1]:
                old = F.pad(old, (0, stored.shape[1] - old.shape[1]))
            if old.shape != stored.shape:
                raise ValueError(
                    f"memory: '{key}' has the shape {tuple(old.shape)}. Expected "
                    f"{tuple(stored.shape)}: the size of the memory and the shape of the samples "
                    "stay the same in all stages"
                )
            stored.copy_(old)
        self.seen.copy_(content["seen"])

    def is_filled(self) -> Tensor:
        """Whether a row is stored, a scalar tensor of 0 or 1."""
        return self.seen.clamp_max(1).float()

    def draw(self, position: Tensor, default: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return one stored row for each number in [0, 1).

        Args:
            position: uniform numbers (N,).
            default: rows (N, ...) that are returned while the memory is empty, for some entries.
        """
        row = (position * self.seen.clamp_max(self.size)).long()
        rows = {key: getattr(self, f"stored_{key}")[row] for key in self.keys}
        is_filled = self.seen > 0
        return rows | {
            key: torch.where(is_filled, rows[key], value) for key, value in default.items()
        }

    def add(self, rows: Mapping[str, Tensor]) -> None:
        """Store each of these rows with the probability of reservoir sampling.

        Args:
            rows: name -> (N, ...), with all entries of the memory.

        Raises:
            ValueError: for rows of another shape.
        """
        count = len(next(iter(rows.values())))
        if not count:
            return
        position = torch.arange(count, device=self.seen.device)
        before = self.seen + position
        uniform = keyed_uniform({"index": before}, 1, "reservoir")[:, 0].double()
        drawn = (uniform * (before + 1)).long()
        slot = torch.where(before < self.size, before, drawn).clamp_max(self.size)
        # Of several rows for one slot the last one stays; the slot beyond the end is dropped.
        winner = torch.full((self.size + 1,), -1, device=slot.device)
        winner = winner.scatter_reduce(0, slot, position, "amax")[: self.size]
        for key in self.keys:
            stored = getattr(self, f"stored_{key}")
            if rows[key].shape[1:] != stored.shape[1:]:
                raise ValueError(
                    f"memory: '{key}' of a sample has the shape {tuple(rows[key].shape[1:])}. "
                    f"Expected {tuple(stored.shape[1:])}, as in the first batch"
                )
            is_new = (winner >= 0).view(-1, *[1] * (stored.ndim - 1))
            stored.copy_(torch.where(is_new, rows[key][winner.clamp_min(0)], stored))
        self.seen += count
