"""Documented types of the options of a scheme with a critic."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge
from torch import nn
from typing_extensions import Doc

from instil.core import NonNegative

CriticNet = Annotated[
    nn.Module | None,
    Doc(
        "network that maps its input to one score, or to one score per position. "
        "None: two layers of 64 channels"
    ),
]
CriticRole = Annotated[
    str,
    Doc(
        "input of the critic: logits (..., C), embedding (N, D), or the deepest of "
        "features, maps or tokens. A learned map adapts other widths than the teacher's, "
        "except for logits"
    ),
]
Condition = Annotated[
    Literal["none", "label"],
    Doc(
        "label appends the one-hot class of each item to the critic's input; an item "
        "without a label gets zeros"
    ),
]
SpectralNorm = Annotated[
    bool, Doc("divide the weight of each critic layer by its largest singular value")
]
Penalty = Annotated[
    NonNegative,
    Doc(
        "weight of half the squared gradient of the critic's score with respect to the "
        "teacher's outputs (R1)"
    ),
]
PenaltyEvery = Annotated[
    int, Ge(1), Doc("number of steps per penalty; the penalty is multiplied by this number")
]
