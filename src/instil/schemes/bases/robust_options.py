"""Documented types of the options that schemes with attacks share."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Le
from typing_extensions import Doc

from instil.core import NonNegative, Positive

EPSILON = 8 / 255
"""Default radius of an attack."""
STEP_SIZE = 2 / 255
"""Default step of an attack."""

Epsilon = Annotated[
    NonNegative, Doc("largest change of a pixel by the attack, for images in [0, 1]")
]
StepSize = Annotated[Positive, Doc("change of a pixel in one step of the attack")]
AttackSteps = Annotated[int, Ge(1), Doc("number of steps of the attack during training")]
RobustWeight = Annotated[NonNegative, Doc("weight of the loss ``robust``")]

Temperature = Annotated[
    Positive, Doc("softmax temperature of the teacher's term, which has its square as factor")
]
Beta = Annotated[
    NonNegative, Doc("exponent that turns the teacher's probability of the label into its trust")
]
AnswersTo = Annotated[
    Literal["clean", "attacked"],
    Doc("images of the teacher's soft labels: clean as published, or attacked"),
]
Partial = Annotated[
    bool, Doc("multiply the teacher's term by the trust, as in the paper; the code does not")
]
Trusting = Annotated[
    float,
    Ge(0),
    Le(1),
    Doc("first share of the training, in which the trust is 1 (60 of 200 epochs in the paper)"),
]
