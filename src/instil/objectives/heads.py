"""Logits of a chunk of tokens at a time: given ones, or made from hidden states and a head, whose gradients are added up over the chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from instil.core import Projection, full
from instil.objectives.token_terms import FLOOR

Signal = Tensor | Projection
"""Logits (..., V), or what they are made from."""
CLASSES_AT_ONCE = 1024
"""A processor multiplies a chunk of tokens by so many rows of a head fastest."""


class Source(Protocol):
    """Logits (N, V) of which some rows are made at a time."""

    items: int
    classes: int
    softcap: float | None

    def load(self, rows: Tensor, into: Tensor) -> None:
        """The logits of these rows, in full precision and none below ``FLOOR``, before the soft-cap."""

    def collect(self, rows: Tensor, gradient: Tensor, weight: Tensor) -> None:
        """Take in the gradient (n, V) of the rows' losses by their logits; a row counts by its ``weight`` where rows are added up."""


class Given:
    """Logits that are there, (N, V); ``tensors`` holds them alone."""

    softcap: float | None = None

    def __init__(self, tensors: Sequence[Tensor], learns: Sequence[bool]):
        (self.logits,) = tensors
        self.items, self.classes = self.logits.shape
        self.gradients = [torch.zeros_like(self.logits) if learns[0] else None]

    def load(self, rows: Tensor, into: Tensor) -> None:
        torch.clamp_min(self.logits[rows].to(into.dtype), FLOOR, out=into)

    def collect(self, rows: Tensor, gradient: Tensor, weight: Tensor) -> None:
        if self.gradients[0] is not None:
            self.gradients[0].index_copy_(0, rows, gradient.to(self.logits.dtype))


class Head:
    """Logits as the sum of products hidden (N, H) weight (V, H)', and a bias (V,) if ``tensors`` are odd in number: hidden, weight, ..., bias.

    Gradients of weights and bias are added up in full precision.
    """

    def __init__(self, tensors: Sequence[Tensor], learns: Sequence[bool], softcap: float | None = None):
        self.tensors, self.softcap = tensors, softcap
        self.pairs = list(zip(tensors[0:-1:2], tensors[1::2], strict=True))
        self.bias = tensors[-1] if len(tensors) % 2 else None
        self.items, self.classes = len(tensors[0]), len(tensors[1])
        self.weights = [weight.to(hidden.dtype) for hidden, weight in self.pairs]
        hidden = set(range(0, 2 * len(self.pairs), 2))
        self.gradients = [
            torch.zeros_like(tensor, dtype=None if number in hidden else full(tensor).dtype) if learned else None
            for number, (tensor, learned) in enumerate(zip(tensors, learns, strict=True))
        ]

    def load(self, rows: Tensor, into: Tensor) -> None:
        for number, ((hidden, _), weight) in enumerate(zip(self.pairs, self.weights, strict=True)):
            _multiply(hidden[rows], weight, into, add=number > 0)
        if self.bias is not None:
            into.add_(self.bias).clamp_min_(FLOOR)

    def collect(self, rows: Tensor, gradient: Tensor, weight: Tensor) -> None:
        for number, ((hidden, _), matrix) in enumerate(zip(self.pairs, self.weights, strict=True)):
            of_hidden, of_weight = self.gradients[2 * number : 2 * number + 2]
            low = gradient.to(hidden.dtype)
            if of_hidden is not None:
                of_hidden.index_copy_(0, rows, low @ matrix)
            if of_weight is not None:
                weighted = hidden[rows] * weight.to(hidden.dtype)[:, None]
                if low.dtype == of_weight.dtype:
                    of_weight.addmm_(low.mT, weighted)
                else:
                    of_weight += low.mT @ weighted
        if self.bias is not None and self.gradients[-1] is not None:
            self.gradients[-1] += weight.to(gradient.dtype) @ gradient


def _multiply(hidden: Tensor, weight: Tensor, into: Tensor, add: bool) -> None:
    if hidden.dtype != into.dtype or hidden.device.type != "cpu":
        product = hidden @ weight.mT
        into.add_(product) if add else into.copy_(product)
        return
    for start in range(0, len(weight), CLASSES_AT_ONCE):
        part, tile = weight[start : start + CLASSES_AT_ONCE].mT, into[:, start : start + CLASSES_AT_ONCE]
        if add:
            tile.addmm_(hidden, part)
        else:
            torch.mm(hidden, part, out=tile)
