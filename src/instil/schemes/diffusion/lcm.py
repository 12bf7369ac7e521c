"""Latent consistency distillation: consistency distillation of a guided teacher."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import nn

from instil.core import Batch, Card, Objective, Objectives, Outputs, Teacher
from instil.functional.diffusion.steps import solver_step
from instil.functional.diffusion.times import random_interval
from instil.schemes.bases.consistency import consistency_target, make_consistency_model
from instil.schemes.bases.diffusion import DiffusionScheme
from instil.schemes.bases.diffusion_options import (
    NumTimes,
    StudentSteps,
    TargetDecay,
    TeacherSolver,
    Weight,
)
from instil.schemes.bases.guidance_range import Highest, Lowest, random_guidance
from instil.teachers.ema import Ema


class LCM(DiffusionScheme):
    """Consistency distillation along the path of a guided teacher (Luo et al. 2023, Algorithm 1).

    A student that reads the number ``guidance`` learns all weights from ``lowest`` to ``highest``.
    Others learn one weight, so both options must be equal.
    """

    card = Card(
        "Latent Consistency Models: Synthesizing High-Resolution Images with Few-Step Inference",
        "https://arxiv.org/abs/2310.04378",
        "arXiv",
        2023,
        source="offline",
        tasks=("diffusion",),
        labels=("single",),
        equation=r"d\big(\hat x^s(z_t, t, w, c), \mathrm{sg}[\hat x^s(z_r, r, w, c)]\big), \quad "
        r"z_r = \mathrm{DDIM}\big(\hat x^t(c) + w (\hat x^t(c) - \hat x^t(\varnothing))\big)",
        use="For class- or text-conditional models that are sampled with guidance: guidance and "
        "few steps are distilled in one stage. Two to four steps are usual.",
        pitfalls="Start from the teacher. A large guidance weight saturates the images and loses "
        "variety. The distance entry_huber with a width near 0.001 is that of the paper's code.",
        deviations="The path skips the times between the points of the grid of num_times, in place "
        "of an interval k of the 1000 times of the teacher. The student's prediction itself is the "
        "noisy image at time 0, so it needs no further scaling.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        lowest: Lowest = 2.0,
        highest: Highest = 2.0,
        num_times: NumTimes = 50,
        solver: TeacherSolver = "ddim",
        decay: TargetDecay = 0.95,
        steps: StudentSteps = 4,
        noise_weight: Weight = "one",
    ):
        super().__init__(student, teacher, objectives, lowest, steps, highest)
        make_consistency_model(self.student_denoiser)
        self.average = Ema(self.student, decay) if decay else None
        self.lowest = lowest
        self.highest = highest
        self.num_times = num_times
        self.solver = solver
        self.decay = decay
        self.noise_weight = noise_weight

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        """Student outputs at the start of a step of the teacher, and the target at its end."""
        sample = self.draw(batch)
        start, end = random_interval(batch, self.schedule, self.num_times)
        noisy = self.schedule.add_noise(sample.clean, sample.noise, start)
        guidance = random_guidance(batch, self.lowest, self.highest)
        denoise = partial(self.teacher_denoised, label=sample.label, guidance=guidance)
        reached = solver_step(denoise, self.schedule, noisy, start, end, self.solver)
        student = self.run_on_data(sample, start, guidance)
        target = consistency_target(self, reached, end, sample.label, guidance)
        return student, {"denoised": target, "loss_weight": self.weights(start, self.noise_weight)}
