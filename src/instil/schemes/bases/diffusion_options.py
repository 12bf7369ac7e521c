"""Documented types of the options of schemes that distil diffusion models."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Lt
from typing_extensions import Doc

from instil.core import NonNegative
from instil.functional.diffusion.loss_weights import LossWeight

Guidance = Annotated[
    float,
    Ge(0),
    Doc(
        "weight of the teacher's classifier-free guidance, which networks with the number guidance "
        "read; 0: no guidance"
    ),
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
NumPairs = Annotated[
    int, Ge(1), Doc("number of pairs that the teacher samples before the first step")
]
PairSteps = Annotated[
    int | None, Ge(1), Doc("number of the teacher's steps for a pair; None: its own")
]
PairSolver = Annotated[
    str | None, Doc("solver of the pairs: ddim, euler, heun or dpm_solver; None: the teacher's")
]
FakeUpdates = Annotated[
    int, Ge(1), Doc("updates of the model of generated images per update of the student")
]
FakeWeight = Annotated[
    LossWeight,
    Doc("weight of the error of the model of generated images over the noise level"),
]
CriticWeight = Annotated[
    NonNegative, Doc("weight of the critic's loss in the updates of the second network")
]
