"""Anything that answers a batch and is not trained by gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from torch import nn

from instil.core.batch import Batch, Outputs
from instil.core.card import Card


class Teacher(nn.Module):
    """Anything that answers a batch and is not trained by gradients: in eval mode whatever its parent does.

    ``changes`` says that training moves its state, so that a checkpoint must hold it.
    """

    changes: ClassVar[bool] = False
    card: ClassVar[Card]

    def train(self, mode: bool = True) -> Teacher:
        """Stays in eval mode."""
        super().train(False)
        return self

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        """The teacher's outputs; with ``grad``, differentiable with respect to the batch."""
        raise NotImplementedError

    def wants(self, roles: Iterable[str], batch: Batch) -> None:
        """Told once which roles will be read, so that it need not make the others."""
