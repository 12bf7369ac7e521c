"""Consistency distillation: equal predictions at both ends of a step of the teacher."""

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
    Guidance,
    NumTimes,
    StudentSteps,
    TargetDecay,
    TeacherSolver,
    Weight,
)
from instil.teachers.ema import Ema


class ConsistencyDistillation(DiffusionScheme):
    """Student with equal predictions along the teacher's path (Song et al. 2023, Algorithm 2)."""

    card = Card(
        "Consistency Models",
        "https://arxiv.org/abs/2303.01469",
        "ICML",
        2023,
        source="offline",
        tasks=("diffusion",),
        labels=("none", "single"),
        equation=r"w(t)\, d\big(\hat x^s(z_t, t), \mathrm{sg}[\hat x^{s'}(z_r, r)]\big), \quad "
        r"z_r = \mathrm{ODEstep}^t(z_t, t \to r)",
        use="For samplers of one to four steps from one network, without a critic. Start from the "
        "teacher (student: {model: teacher}).",
        pitfalls="A coarse grid is biased, a fine one learns slowly: 10 to 40 intervals for a "
        "short training. An average with a decay near 1 is old in a short training. Several "
        "steps use the solver consistency, which adds fresh noise after each.",
        deviations="The default target is the student itself, as in later papers; the paper's is a "
        "moving average. LPIPS is not offered; the distance is an option of denoised_matching.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        num_times: NumTimes = 18,
        solver: TeacherSolver = "heun",
        decay: TargetDecay = 0.0,
        steps: StudentSteps = 1,
        noise_weight: Weight = "one",
        guidance: Guidance = 0.0,
    ):
        super().__init__(student, teacher, objectives, guidance, steps)
        make_consistency_model(self.student_denoiser)
        self.average = Ema(self.student, decay) if decay else None
        self.decay = decay
        self.noise_weight = noise_weight
        self.num_times = num_times
        self.solver = solver

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        """Student outputs at the start of a step of the teacher, and the target at its end."""
        sample = self.draw(batch)
        start, end = random_interval(batch, self.schedule, self.num_times)
        noisy = self.schedule.add_noise(sample.clean, sample.noise, start)
        denoise = partial(self.teacher_denoised, label=sample.label)
        reached = solver_step(denoise, self.schedule, noisy, start, end, self.solver)
        student = self.run_on_data(sample, start)
        target = consistency_target(self, reached, end, sample.label)
        return student, {"denoised": target, "loss_weight": self.weights(start, self.noise_weight)}
