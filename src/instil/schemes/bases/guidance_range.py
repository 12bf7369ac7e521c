"""Guidance weights of a training, and the networks that read them."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.cards import Schedule
from instil.core import Batch
from instil.functional.keyed_random import keyed_uniform
from instil.modules.denoiser import Denoiser

Lowest = Annotated[float, Ge(0), Doc("smallest guidance weight of the training")]
Highest = Annotated[float, Ge(0), Doc("largest guidance weight of the training")]


def random_guidance(batch: Batch, lowest: float, highest: float) -> Tensor:
    """Uniform guidance weights of a batch.

    Args:
        batch: batch of the step.
        lowest: smallest weight.
        highest: largest weight.

    Returns:
        (N,).
    """
    return lowest + (highest - lowest) * keyed_uniform(batch, 1, "scheme.guidance")[:, 0]


def check_guidance_range(
    student: Denoiser, lowest: float | Schedule, highest: float | Schedule
) -> None:
    """Check that a student can learn guidance weights, and that its sampler has one of them.

    Args:
        student: the student. If it reads the number ``guidance``, it learns all weights.
        lowest: smallest weight, or its schedule.
        highest: largest weight, or its schedule.

    Raises:
        ValueError: for an empty range, and for several weights of a student that does not read
            them. Also if the sampler of the student would guide its images again, or reads a weight
            that the student does not learn.
    """
    # The student is sampled after the training.
    first, last = (
        value.end if isinstance(value, Schedule) else value for value in (lowest, highest)
    )
    if last < first:
        raise ValueError(
            f"scheme.highest: less than the smallest weight. Expected at least {first:g}, got "
            f"{last:g}"
        )
    if "guidance" in student.scalars:
        _check_learned(student, first, last)
    elif last > first:
        raise ValueError(
            "scheme.highest: the student does not read the number guidance, so it can learn "
            f"one weight only. Expected {first:g}, the smallest weight, got {last:g}. Set "
            "scalars: [guidance] in the options of its network, or equal weights"
        )
    elif last and student.guidance:
        raise ValueError(
            "student.options.guidance: the student learns guided images, and its sampler would "
            f"guide them again. Expected 0, got {student.guidance:g}. Set guidance: 0 in the "
            "options of the student"
        )


def _check_learned(student: Denoiser, lowest: float, highest: float) -> None:
    """Check that the sampler of a student reads a weight that the student learns."""
    if lowest <= student.guidance <= highest:
        return
    learned = f"{lowest:g}" if lowest == highest else f"a weight from {lowest:g} to {highest:g}"
    raise ValueError(
        "student.options.guidance: the student reads the number guidance, and its sampler has a "
        f"weight that the student does not learn. Expected {learned}, got {student.guidance:g}. "
        "Set guidance in the options of the student, or another weight in scheme"
    )
