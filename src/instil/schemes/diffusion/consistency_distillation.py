"""Consistency distillation: equal predictions at both ends of a step of the teacher."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from instil.core import Batch, Card, Objective, Objectives, Outputs, Teacher
from instil.schemes.bases.consistency import ConsistencyScheme
from instil.schemes.bases.diffusion_options import (
    Guidance,
    NumTimes,
    StudentSteps,
    TargetDecay,
    TeacherSolver,
    Weight,
)


class ConsistencyDistillation(ConsistencyScheme):
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
        super().__init__(student, teacher, objectives, decay, noise_weight, guidance)
        self.num_times = num_times
        self.solver = solver
        if steps is not None:
            self.student_denoiser.reconfigure(steps=steps)
        self.steps = self.student_denoiser.steps

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        """Student outputs at the start of a step of the teacher, and the target at its end."""
        sample = self.draw(batch)
        start, end = self.interval(batch, self.num_times, "scheme.interval")
        noisy = self.schedule.add_noise(sample.clean, sample.noise, start)
        guidance, scalars = self.draw_guidance(batch)
        reached = self.teacher_step(noisy, start, end, sample.label, self.solver, guidance)
        student = self.run_on_data(sample, start, **scalars)
        target = self.target(reached, end, sample.label, **scalars)
        return student, {"denoised": target, "loss_weight": self.weights(start)}

    def draw_guidance(self, batch: Batch) -> tuple[Tensor | float, dict[str, Tensor]]:
        """Weight of the teacher's guidance, and the numbers that the student reads."""
        return self.guidance, {}
