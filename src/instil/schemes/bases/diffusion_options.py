"""Documented types of the options of schemes that distil diffusion models."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Lt
from typing_extensions import Doc

from instil.functional.diffusion.loss_weights import LossWeight

Guidance = Annotated[
    float, Ge(0), Doc("weight of the teacher's classifier-free guidance; 0: no guidance")
]
Weight = Annotated[
    LossWeight,
    Doc(
        "weight of the error of the clean image over the noise level; output: the error of the "
        "network output counts"
    ),
]
StudentSteps = Annotated[
    int | None, Ge(1), Doc("number of sampling steps of the student; None: those of its sampler")
]
TeacherSolver = Annotated[
    Literal["ddim", "heun"],
    Doc("solver of the teacher's step; heun: second order, with two calls of the teacher"),
]
TargetDecay = Annotated[
    float,
    Ge(0),
    Lt(1),
    Doc("decay of the moving average that predicts the target; 0: the student itself"),
]
NumTimes = Annotated[int, Ge(2), Doc("number of intervals of the time grid")]
