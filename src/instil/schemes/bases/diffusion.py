"""Base class of schemes that distil diffusion models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Batch, Net, Objective, Objectives, Outputs, Scheme, Teacher
from instil.functional.diffusion.steps import guided
from instil.modules.denoiser import Denoiser
from instil.modules.denoiser_call import denoiser_of
from instil.modules.noisy_sample import NoisySample


class DiffusionScheme(Scheme):
    """Base class of schemes whose student and teacher are denoisers.

    Networks run through their ``Net``, so that taps and sharding work. A scheme calls ``draw``,
    ``run_student`` and ``teacher_denoised``.

    Args:
        student: the student, a ``Denoiser``.
        teacher: the teacher, with a ``Denoiser``; None for schemes without a teacher.
        objectives: losses, by name.

    Raises:
        ValueError: for a network that is not a ``Denoiser``.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
    ):
        super().__init__(student, teacher, objectives)
        denoiser_of(self.student)
        if teacher is not None:
            denoiser_of(teacher)

    @property
    def student_denoiser(self) -> Denoiser:
        """Student without its ``Net``, for its schedule and parameterisation."""
        return denoiser_of(self.student)

    @property
    def teacher_denoiser(self) -> Denoiser:
        """Teacher without its ``Net``, for its schedule and parameterisation.

        Raises:
            ValueError: without a teacher.
        """
        if self.teacher is None:
            raise ValueError(
                f"teacher: {type(self).__name__} needs one. Expected a diffusion model"
            )
        return denoiser_of(self.teacher)

    def build(self, batch: Batch) -> None:
        super().build(batch)
        if self.teacher is not None:
            # The forward pass must not stop before the end of the network.
            roles = (self.objectives.reads("teacher") - {"input"}) | {"denoised"}
            self.teacher.select_roles(roles, batch)

    def draw(self, batch: Batch, stream: str = "diffusion") -> NoisySample:
        """Noisy images of a training batch, for the schedule and times of the student."""
        return self.student_denoiser.draw(batch, stream)

    def run_student(
        self,
        noisy: Tensor,
        time: Tensor,
        label: Tensor | None = None,
        net: Net | Teacher | None = None,
        **scalars: Tensor,
    ) -> Outputs:
        """Outputs of the student: ``denoised``, ``prediction`` and its taps.

        Args:
            noisy: noisy images (N, C, H, W).
            time: times (N,) of the schedule of the student.
            label: classes (N,), None for no class.
            net: another network, such as an average of the student; None: the student.
            **scalars: numbers (N,) that the network reads besides the time.
        """
        outputs: Outputs = (net or self.student)(denoiser_batch(noisy, time, label, **scalars))
        return outputs

    def teacher_denoised(
        self,
        noisy: Tensor,
        time: Tensor,
        label: Tensor | None = None,
        guidance: Tensor | float = 0.0,
        grad: bool = False,
    ) -> Tensor:
        """Clean images that the teacher predicts from noisy images of the student's schedule.

        Args:
            noisy: noisy images (N, C, H, W) of the student's schedule.
            time: times (N,) of the student's schedule.
            label: classes (N,), None for no class.
            guidance: weight of classifier-free guidance, a number or (N,).
            grad: whether the result is differentiable with respect to ``noisy``.
        """
        noisy, time = translate(noisy, time, self.student_denoiser, self.teacher_denoiser)
        self.teacher_denoiser.check_guidance(guidance)
        assert self.teacher is not None
        with torch.set_grad_enabled(grad):
            inputs = denoiser_batch(noisy, time, label)
            denoised: Tensor = self.teacher(inputs, grad=grad)["denoised"]
            if not isinstance(guidance, Tensor) and guidance == 0:
                return denoised
            inputs = denoiser_batch(noisy, time, None)
            unconditional: Tensor = self.teacher(inputs, grad=grad)["denoised"]
            return guided(denoised, unconditional, guidance)


def denoiser_batch(
    noisy: Tensor, time: Tensor, label: Tensor | None = None, **scalars: Tensor
) -> Batch:
    """Batch by which a net with a denoiser is called; see ``denoiser_call``.

    Args:
        noisy: noisy images (N, C, H, W).
        time: times (N,).
        label: classes (N,), None for no class.
        **scalars: numbers (N,) that the network reads besides the time.
    """
    batch: dict[str, Any] = {"noisy": noisy, "time": time, **scalars}
    return batch if label is None else batch | {"label": label}


def translate(
    noisy: Tensor, time: Tensor, source: Denoiser, target: Denoiser
) -> tuple[Tensor, Tensor]:
    """Noisy images and times of one schedule as those of another with the same noise level.

    Args:
        noisy: noisy images (N, ...) of ``source``.
        time: their times (N,) > 0.
        source: denoiser with the schedule of ``noisy``.
        target: denoiser with the other schedule.

    Returns:
        Images and times of ``target``; the arguments themselves if the schedules are equal.
    """
    old, new = source.schedule, target.schedule
    if source.options["schedule"] == target.options["schedule"]:
        return noisy, time
    new_time = new.time_of_ratio(old.sigma(time) / old.alpha(time))
    # Standard deviations, not signals, are divided: a schedule may end without signal.
    ratio = new.coefficients(new_time, noisy)[1] / old.coefficients(time, noisy)[1]
    return noisy * ratio, new_time
