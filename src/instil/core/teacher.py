"""Base class of teachers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from torch import nn

from instil.cards import Card
from instil.cards.keywords import ClearKeywords
from instil.items.batch import Batch, Outputs


class Teacher(ClearKeywords, nn.Module):
    """Module that returns outputs for a batch and is not trained by gradients.

    A teacher is in eval mode, whatever the mode of its parent. Optional capabilities are protocols
    of ``instil.capabilities`` and tags of the card.
    """

    card: ClassVar[Card]

    def train(self, mode: bool = True) -> Teacher:
        """Set eval mode, whatever ``mode`` is."""
        super().train(False)
        return self

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        """Outputs of the teacher for a batch.

        Args:
            batch: the batch.
            grad: the outputs are differentiable with respect to the batch.
        """
        raise NotImplementedError

    def select_roles(self, roles: Iterable[str], batch: Batch) -> None:
        """Receive, once, the roles that will be read, so that others need not be computed."""
