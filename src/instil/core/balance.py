"""Base class of rules that change the weights of several losses during training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from instil.cards import Card, ClearKeywords
from instil.items import Outputs


class Balance(ClearKeywords, nn.Module):
    """Base class of rules that change the weights of several losses during training.

    Options are attributes of the same name.
    """

    card: ClassVar[Card]

    def build(self, couples: Mapping[str, bool]) -> None:
        """Make parameters and buffers, once.

        Args:
            couples: name of each loss -> whether it couples the batch.
        """

    def forward(
        self, losses: dict[str, Tensor], counts: dict[str, Tensor], student: Outputs
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Balance the losses.

        Args:
            losses: name -> weighted loss.
            counts: name -> number of items of this micro-batch.
            student: outputs of the student.

        Returns:
            The balanced losses, and rows for ``after_step``.
        """
        raise NotImplementedError

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """Update buffers; no other method changes them."""
