"""Logits of a chunk of tokens at a time: given ones, or made from hidden states and a head, whose gradients are added up over the chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from instil.core import Projection, full

Signal = Tensor | Projection
"""Logits (..., V), or what they are made from."""


Rows = Tensor | slice
"""Numbers of tokens, or a run of them that is read and written where it stands."""


class LogitSource(Protocol):
    """Logits (N, V) of which some rows are made at a time."""

    items: int
    classes: int
    softcap: float | None
    multiplies: bool
    """Whether matrix products make the logits, which are fast for many rows at a time."""

    def load(self, rows: Rows, room: Tensor | None) -> Tensor:
        """The logits of these rows, in full precision, before the soft-cap; products are written over ``room``, what was loaded before, if any."""

    def collect(self, rows: Rows, gradient: Tensor, weight: Tensor) -> None:
        """Take in the gradient (n, V) of the rows' losses by their logits; a row counts by its ``weight`` where rows are added up."""

    def summed(self) -> list[Tensor | None]:
        """The gradients by the tensors, of all that was collected; None for those that do not learn."""


class DenseLogits:
    """Logits that are there, (N, V); ``tensors`` holds them alone."""

    softcap: float | None = None
    multiplies = False

    def __init__(self, tensors: Sequence[Tensor], learns: Sequence[bool]):
        (self.logits,), (self.learns,) = tensors, learns
        self.items, self.classes = self.logits.shape
        self.gradient: Tensor | None = None

    def load(self, rows: Rows, room: Tensor | None) -> Tensor:
        return self.logits[rows].to(full(self.logits).dtype)

    def collect(self, rows: Rows, gradient: Tensor, weight: Tensor) -> None:
        if self.gradient is None:  # runs of rows are all that there are, and leave nothing out
            self.gradient = (
                torch.empty_like(self.logits)
                if isinstance(rows, slice)
                else torch.zeros_like(self.logits)
            )
        self.gradient[rows] = gradient.to(self.logits.dtype)

    def summed(self) -> list[Tensor | None]:
        return [
            torch.zeros_like(self.logits)
            if self.learns and self.gradient is None
            else self.gradient
        ]


class HeadLogits:
    """Logits as the sum of products hidden (N, H) weight (V, H)', and a bias (V,) if ``tensors`` are odd in number: hidden, weight, ..., bias.

    Gradients of weights and bias are added up in full precision.
    """

    multiplies = True

    def __init__(
        self, tensors: Sequence[Tensor], learns: Sequence[bool], softcap: float | None = None
    ):
        self.tensors, self.softcap = tensors, softcap
        self.pairs = list(zip(tensors[0:-1:2], tensors[1::2], strict=True))
        self.bias = tensors[-1] if len(tensors) % 2 else None
        self.items, self.classes = len(tensors[0]), len(tensors[1])
        self.weights = [weight.to(hidden.dtype) for hidden, weight in self.pairs]
        hidden = set(range(0, 2 * len(self.pairs), 2))
        self.gradients = [
            torch.zeros_like(tensor)
            if learned and number in hidden
            else torch.empty_like(tensor, dtype=full(tensor).dtype)
            if learned
            else None
            for number, (tensor, learned) in enumerate(zip(tensors, learns, strict=True))
        ]
        self.begun = False

    def load(self, rows: Rows, room: Tensor | None) -> Tensor:
        size = (rows.stop - rows.start) if isinstance(rows, slice) else len(rows)
        hidden = self.tensors[0]
        room = (
            torch.empty(size, self.classes, dtype=full(hidden).dtype, device=hidden.device)
            if room is None
            else room[:size]
        )
        for number, ((hidden, _), weight) in enumerate(zip(self.pairs, self.weights, strict=True)):
            _multiply(hidden[rows], weight, room, add=number > 0)
        if self.bias is not None:
            room.add_(self.bias)
        return room

    def collect(self, rows: Rows, gradient: Tensor, weight: Tensor) -> None:
        keep = float(self.begun)
        for number, ((hidden, _), matrix) in enumerate(zip(self.pairs, self.weights, strict=True)):
            of_hidden, of_weight = self.gradients[2 * number : 2 * number + 2]
            low = gradient.to(hidden.dtype)
            if of_hidden is not None:
                of_hidden[rows] = low @ matrix
            if of_weight is not None:
                weighted = hidden[rows] * weight.to(hidden.dtype)[:, None]
                if low.dtype == of_weight.dtype:
                    of_weight.addmm_(low.mT, weighted, beta=keep)
                else:
                    product = low.mT @ weighted
                    of_weight.add_(product) if self.begun else of_weight.copy_(product)
        if self.bias is not None and self.gradients[-1] is not None:
            self.gradients[-1].addmv_(gradient.mT, weight.to(gradient.dtype), beta=keep)
        self.begun = True

    def summed(self) -> list[Tensor | None]:
        if not self.begun:
            for gradient in self.gradients:
                if gradient is not None:
                    gradient.zero_()
        return self.gradients


def _multiply(hidden: Tensor, weight: Tensor, into: Tensor, add: bool) -> None:
    if hidden.dtype != into.dtype:
        product = hidden @ weight.mT
        into.add_(product) if add else into.copy_(product)
    elif add:
        into.addmm_(hidden, weight.mT)
    else:
        torch.mm(hidden, weight.mT, out=into)
