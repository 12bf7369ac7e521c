"""Guidance distillation: one call of the student replaces the two calls of a guided teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Objectives, Outputs, Teacher
from instil.functional.keyed_random import keyed_uniform
from instil.schemes.bases.denoised_targets import DenoisedTargets, draws
from instil.schemes.bases.diffusion_options import Weight


class GuidanceDistillation(DenoisedTargets):
    """Student that predicts the guided clean images of its teacher (Meng et al. 2023, Eq. 5).

    A student that reads the number ``guidance`` learns all weights from ``lowest`` to ``highest``.
    Others learn one weight, so both options must be equal.

    Raises:
        ValueError: if the teacher reads no label, or the student cannot learn several weights.
    """

    card = Card(
        "On Distillation of Guided Diffusion Models",
        "https://arxiv.org/abs/2210.03142",
        "CVPR",
        2023,
        source="offline",
        tasks=("diffusion",),
        labels=("single",),
        equation=r"w(t) \lVert \hat x^s(z_t, t, w, c) - [(1 + w) \hat x^t(z_t, t, c) - w\, "
        r"\hat x^t(z_t, t)] \rVert^2",
        use="First stage before the number of steps is reduced: it halves the cost of a step of a "
        "guided sampler. The student of the later stages no longer needs an unconditional "
        "prediction.",
        pitfalls="It needs a teacher that was trained with label_dropout. Evaluate the student "
        "with the guidance that it learned: without the option scalars: [guidance] its sampler "
        "must have guidance 0, because the weight is part of the network.",
        deviations="The paper embeds the weight by Fourier features; the student's network decides "
        "how it reads the number.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        lowest: Annotated[float, Ge(0), Doc("smallest guidance weight of the training")] = 0.0,
        highest: Annotated[float, Ge(0), Doc("largest guidance weight of the training")] = 4.0,
        weight: Weight = "truncated_snr",
    ):
        super().__init__(student, teacher, objectives, weight)
        self.teacher_denoiser.check_guidance(highest or 1.0)
        check_range(lowest, highest)
        self.reads_guidance = "guidance" in self.student_denoiser.scalars
        if not self.reads_guidance and lowest != highest:
            raise ValueError(
                "scheme.highest: the student does not read the number guidance, so it can learn "
                f"one weight only. Expected {lowest:g}, as scheme.lowest, got {highest:g}. Set the "
                "option scalars: [guidance] of the student's network, or equal weights"
            )
        self.lowest = lowest
        self.highest = highest

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        """Outputs of the student, and the guided clean images of the teacher."""
        sample = self.draw(batch)
        # Without dropped labels: the student needs no unconditional prediction.
        label: Tensor = batch["label"]
        uniforms = keyed_uniform(batch, 1, "scheme.guidance")[:, 0]
        guidance = self.lowest + (self.highest - self.lowest) * uniforms
        target = self.teacher_denoised(sample.noisy, sample.time, label, guidance)
        scalars = {"guidance": guidance} if self.reads_guidance else {}
        student = self.run_student(sample.noisy, sample.time, label, **scalars)
        teacher = {"denoised": target, "loss_weight": self.weights(sample.time)}
        return student | draws(sample), teacher


def check_range(lowest: float, highest: float) -> None:
    """Check the range of guidance weights.

    Raises:
        ValueError: if ``highest`` is less than ``lowest``.
    """
    if highest < lowest:
        raise ValueError(
            "scheme.highest: less than scheme.lowest. Expected at least "
            f"{lowest:g}, got {highest:g}"
        )
