"""Random guidance weights of a training."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch
from instil.functional.keyed_random import keyed_uniform
from instil.modules.denoiser import Denoiser

Lowest = Annotated[float, Ge(0), Doc("smallest guidance weight of the training")]
Highest = Annotated[float, Ge(0), Doc("largest guidance weight of the training")]


class GuidanceRange:
    """Uniform guidance weights for a student that reads the number ``guidance``, or one weight.

    Args:
        student: the student.
        teacher: the teacher that is guided.
        lowest: smallest weight.
        highest: largest weight.

    Raises:
        ValueError: for an empty range, a teacher without classes, and several weights for a student
            that does not read them, or that its sampler would guide again.
    """

    def __init__(self, student: Denoiser, teacher: Denoiser, lowest: float, highest: float):
        if highest < lowest:
            raise ValueError(
                "scheme.highest: less than scheme.lowest. Expected at least "
                f"{lowest:g}, got {highest:g}"
            )
        teacher.check_guidance(highest)
        self.is_read = "guidance" in student.scalars
        if not self.is_read and lowest != highest:
            raise ValueError(
                "scheme.highest: the student does not read the number guidance, so it can learn "
                f"one weight only. Expected {lowest:g}, as scheme.lowest, got {highest:g}. Set "
                "scalars: [guidance] in the options of its network, or equal weights"
            )
        if not self.is_read:
            check_guided_once(student, highest)
        self.lowest = lowest
        self.highest = highest

    def draw(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Weights (N,) of a batch, and the numbers that the student reads."""
        uniforms = keyed_uniform(batch, 1, "scheme.guidance")[:, 0]
        guidance = self.lowest + (self.highest - self.lowest) * uniforms
        return guidance, {"guidance": guidance} if self.is_read else {}


def check_guided_once(student: Denoiser, guidance: float) -> None:
    """Check that a student of a guided teacher is not guided again by its sampler.

    Args:
        student: the student.
        guidance: weight of the guidance of its targets.

    Raises:
        ValueError: if it is.
    """
    if guidance and student.guidance:
        raise ValueError(
            "student.options.guidance: the student learns guided images, and its sampler would "
            f"guide them again. Expected 0, got {student.guidance:g}. Set guidance: 0 in the "
            "options of the student"
        )
