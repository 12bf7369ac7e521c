"""Network in training as it was at the end of the last epoch."""

from __future__ import annotations

from torch import nn

from instil.core import Card
from instil.teachers.ema import Ema


class PreviousEpoch(Ema):
    """Copy of a network that ``follow`` replaces by the current weights.

    With a call of ``follow`` at the end of each epoch, it is the network of the previous epoch.
    """

    card = Card(
        "Self-Knowledge Distillation with Progressive Refinement of Targets",
        "https://arxiv.org/abs/2006.12000",
        "ICCV",
        2021,
        source="self",
    )

    def __init__(self, net: nn.Module):
        super().__init__(net, decay=0.0)
