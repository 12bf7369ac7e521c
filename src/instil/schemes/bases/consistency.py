"""Base class of consistency models, whose target is their own prediction at less noise."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from instil.core import Objective, Objectives, Teacher
from instil.functional.diffusion.loss_weights import LossWeight
from instil.schemes.bases.denoised_targets import DenoisedTargets
from instil.teachers.ema import Ema


class ConsistencyScheme(DenoisedTargets):
    """Base class of schemes whose target is the student, or its average, at an earlier time.

    Args:
        student: the student. Its prediction must be the noisy image itself at time 0, which holds
            for all parameterisations except ``x0``.
        teacher: the teacher; None for schemes that learn from the data.
        objectives: losses, by name.
        decay: decay of the moving average that predicts the target; 0: the student itself.
        noise_weight: weight of the error of the clean image over the noise level.
        guidance: weight of the teacher's classifier-free guidance.

    Raises:
        ValueError: for a student with the parameterisation ``x0``.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        decay: float = 0.0,
        noise_weight: LossWeight = "one",
        guidance: float = 0.0,
    ):
        super().__init__(student, teacher, objectives, noise_weight, guidance)
        if self.student_denoiser.parameterisation.name == "x0":
            raise ValueError(
                "student.options.parameterisation: a consistency model returns an image without "
                "noise unchanged, which x0 does not. Expected v, flow, edm, consistency or eps"
            )
        self.decay = decay
        self.average = Ema(self.student, decay) if decay else None
        self.student_denoiser.reconfigure(solver="consistency")

    def target(
        self, noisy: Tensor, time: Tensor, label: Tensor | None, **scalars: Tensor
    ) -> Tensor:
        """Clean images of the target at earlier times (N,), without gradient."""
        # Not the net of the average: the calls of a sharded teacher gather its weights.
        net = self.average or self.student
        return self.clean_at(net, noisy, time, label, **scalars)

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        super().after_step(gathered_rows)
        if self.average is not None:
            self.average.follow(self.student)


def relative_gap(ratio: Tensor, earlier: Tensor) -> Tensor:
    """Weight ``1 / (t - r)`` of consistency training, finite for equal noise levels.

    Args:
        ratio: noise level ``t = sigma / alpha`` of the student (N,).
        earlier: noise level ``r`` of the target (N,).
    """
    return 1 / (ratio - earlier).clamp_min(torch.finfo(ratio.dtype).eps)
