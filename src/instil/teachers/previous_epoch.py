"""A net that learns, as it was when the last epoch ended."""

from __future__ import annotations

from torch import nn

from instil.core import Card
from instil.teachers.ema import Ema


class PreviousEpoch(Ema):
    """A copy of a net that ``follow`` sets to what the net is now: called at the ends of epochs, it is the net of the epoch before."""

    card = Card(
        "Self-Knowledge Distillation with Progressive Refinement of Targets",
        "https://arxiv.org/abs/2006.12000",
        "ICCV",
        2021,
        source="self",
    )

    def __init__(self, net: nn.Module):
        super().__init__(net, decay=0.0)
