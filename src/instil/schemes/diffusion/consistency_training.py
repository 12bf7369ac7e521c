"""Consistency training: equal predictions for one image at two noise levels, without a teacher."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

from annotated_types import Ge
from torch import nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Objectives, Outputs
from instil.functional.diffusion.times import random_interval
from instil.schemes.bases.consistency import consistency_target, make_consistency_model
from instil.schemes.bases.diffusion import DiffusionScheme
from instil.schemes.bases.diffusion_options import StudentSteps, TargetDecay, Weight
from instil.teachers.ema import Ema


class ConsistencyTraining(DiffusionScheme):
    """Consistency model trained on data, without a teacher (Song et al. 2023, Algorithm 3)."""

    card = Card(
        "Consistency Models",
        "https://arxiv.org/abs/2303.01469",
        "ICML",
        2023,
        source="self",
        tasks=("diffusion",),
        labels=("none", "single"),
        equation=r"w(t)\, d\big(\hat x^s(x + t \epsilon, t), "
        r"\mathrm{sg}[\hat x^{s'}(x + r \epsilon, r)]\big)",
        use="The baseline of consistency_distillation without a teacher: what a few-step model "
        "learns from the data alone.",
        pitfalls="The direction to the data is that of one image, so the gradient has more noise "
        "than with a teacher. Raise last_times with the length of the training.",
        deviations="The decay of the average does not change with the number of intervals. The "
        "default target is the student itself, as in Song & Dhariwal 2024.",
    )

    def __init__(
        self,
        student: nn.Module,
        objectives: Objectives | Mapping[str, Objective],
        first_times: Annotated[int, Ge(2), Doc("number of intervals at the start")] = 2,
        last_times: Annotated[int, Ge(2), Doc("number of intervals at the end")] = 40,
        decay: TargetDecay = 0.0,
        steps: StudentSteps = 1,
        noise_weight: Weight = "one",
    ):
        super().__init__(student, None, objectives, steps=steps)
        make_consistency_model(self.student_denoiser)
        self.average = Ema(self.student, decay) if decay else None
        self.decay = decay
        self.noise_weight = noise_weight
        if last_times < first_times:
            raise ValueError(
                "scheme.last_times: less than scheme.first_times. Expected at least "
                f"{first_times}, got {last_times}"
            )
        self.first_times = first_times
        self.last_times = last_times

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        """Student outputs at the start of an interval, and the target at its end."""
        sample = self.draw(batch)
        progress = float(batch.get("progress", 0.0))
        num_times = num_intervals(progress, self.first_times, self.last_times)
        start, end = random_interval(batch, self.schedule, num_times)
        reached = self.schedule.add_noise(sample.clean, sample.noise, end)
        student = self.run_on_data(sample, start)
        target = consistency_target(self, reached, end, sample.label)
        teacher = {"denoised": target, "loss_weight": self.weights(start, self.noise_weight)}
        return student, teacher


def num_intervals(progress: float, first: int, last: int) -> int:
    """Number of intervals of consistency training (Song et al. 2023, appendix C).

    Args:
        progress: share of the training that has passed, in [0, 1].
        first: number at the start.
        last: number at the end.

    Example:
        >>> [num_intervals(progress, 2, 40) for progress in (0.0, 0.5, 1.0)]
        [2, 30, 41]
    """
    squared = progress * ((last + 1) ** 2 - first**2) + first**2
    return math.ceil(math.sqrt(squared) - 1) + 1
