"""Reflow: training on pairs of noise and teacher image, which straightens the flow."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from instil.core import Batch, Card, Objective, Objectives, Outputs, Teacher
from instil.schemes.bases.diffusion import DiffusionScheme
from instil.schemes.bases.diffusion_options import (
    Guidance,
    NumPairs,
    PairSolver,
    PairSteps,
    Weight,
)
from instil.schemes.bases.ode_pairs import OdePairs


class Reflow(DiffusionScheme):
    """Student trained on the teacher's pairs of noise and image (Liu et al. 2023, Eq. 1).

    The loss is that of a flow model, but the noise of an image is the one that the teacher made it
    of.
    """

    card = Card(
        "Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow",
        "https://arxiv.org/abs/2209.03003",
        "ICLR",
        2023,
        source="offline",
        tasks=("diffusion",),
        labels=("none", "single"),
        equation=r"\lVert v^s(z_t, t) - (z - \mathrm{ODE}^t(z)) \rVert^2, \quad "
        r"z_t = (1 - t)\, \mathrm{ODE}^t(z) + t z",
        use="For a sampler of any small number of steps from one network. Repeat the stage for "
        "straighter paths, and let ode_regression follow for one step.",
        pitfalls="Student and teacher need the schedule flow: only a linear path becomes straight. "
        "Each repeat samples new pairs from the last student and adds its error. With few pairs "
        "the student memorises them.",
        deviations="The student predicts any quantity; with the weight output and the "
        "parameterisation flow the loss is that of the paper.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        num_pairs: NumPairs = 4096,
        pair_steps: PairSteps = None,
        pair_solver: PairSolver = None,
        noise_weight: Weight = "output",
        guidance: Guidance = 0.0,
    ):
        super().__init__(student, teacher, objectives, guidance)
        self.num_pairs = num_pairs
        self.noise_weight = noise_weight
        self.pairs = OdePairs(self, num_pairs, pair_steps, pair_solver)
        if self.schedule.name != "flow":
            raise ValueError(
                f"student.options.schedule: reflow straightens linear paths. Expected flow, got "
                f"{self.schedule.name}"
            )

    def build(self, batch: Batch) -> None:
        self.pairs.allocate(batch["image"])
        super().build(batch)

    def before_step(self, batch: Batch) -> Batch:
        """Sample the pairs before the first step."""
        self.pairs.fill(self, batch)
        return batch

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        """Student outputs between recorded noise and image, and the teacher's images."""
        pair = self.pairs.draw(batch)
        time = self.draw(batch).time
        noisy = self.schedule.add_noise(pair.image, pair.noise, time)
        student = self.run_student(noisy, time, pair.label)
        if self.noise_weight != "output":
            weight = self.weights(time, self.noise_weight)
            return student, {"denoised": pair.image, "loss_weight": weight}
        # The same loss by the clean image would lose digits at small times.
        coefficients = self.schedule.coefficients(time, noisy)
        kind = self.student_denoiser.parameterisation
        target = kind.target(pair.image, pair.noise, *coefficients)
        student |= {"compared": student["prediction"]}
        return student, {"denoised": pair.image, "compared": target}
