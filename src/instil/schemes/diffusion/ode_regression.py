"""Regression of the images that the teacher's sampler makes of noise, in one step."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from instil.core import Batch, Card, Objective, Objectives, Outputs, Teacher
from instil.schemes.bases.diffusion import DiffusionScheme
from instil.schemes.bases.diffusion_options import Guidance, NumPairs, PairSolver, PairSteps
from instil.schemes.bases.ode_pairs import OdePairs, noise_start


class OdeRegression(DiffusionScheme):
    """Student that maps noise to the teacher's image in one step (Luhman & Luhman 2021, Eq. 7)."""

    card = Card(
        "Knowledge Distillation in Iterative Generative Models for Improved Sampling Speed",
        "https://arxiv.org/abs/2101.02388",
        "arXiv",
        2021,
        source="offline",
        tasks=("diffusion",),
        labels=("none", "single"),
        equation=r"\lVert \hat x^s(\sigma_T z, T) - \mathrm{ODE}^t(z) \rVert^2",
        use="The simplest one-step student: a regression, as stable as supervised learning. Good "
        "as a start for methods that sharpen the images, such as dmd2.",
        pitfalls="It needs many pairs: with few the student memorises them. An average over "
        "similar noise blurs the images. The teacher samples all pairs before the first step, "
        "which takes num_pairs times pair_steps calls.",
        deviations="Pairs are recorded once before the training.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        num_pairs: NumPairs = 4096,
        pair_steps: PairSteps = None,
        pair_solver: PairSolver = None,
        guidance: Guidance = 0.0,
    ):
        super().__init__(student, teacher, objectives, guidance, steps=1)
        self.num_pairs = num_pairs
        self.pairs = OdePairs(self, num_pairs, pair_steps, pair_solver)

    def build(self, batch: Batch) -> None:
        self.pairs.allocate(batch["image"])
        super().build(batch)

    def before_step(self, batch: Batch) -> Batch:
        """Sample the pairs before the first step."""
        self.pairs.fill(self, batch)
        return batch

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        """Student outputs for recorded noise, and the teacher's images."""
        pair = self.pairs.draw(batch)
        student = self.run_student(*noise_start(self.schedule, pair.noise), pair.label)
        return student, {"denoised": pair.image}
