"""Guidance distillation: one call of the student replaces the two calls of a guided teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from instil.core import Batch, Card, Objective, Objectives, Outputs, Teacher
from instil.schemes.bases.diffusion import DiffusionScheme
from instil.schemes.bases.diffusion_options import Weight
from instil.schemes.bases.guidance_range import Highest, Lowest, random_guidance


class GuidanceDistillation(DiffusionScheme):
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
        lowest: Lowest = 0.0,
        highest: Highest = 4.0,
        noise_weight: Weight = "truncated_snr",
    ):
        super().__init__(student, teacher, objectives, lowest, highest=highest)
        self.noise_weight = noise_weight
        self.teacher_denoiser.check_guidance(1.0)
        self.lowest = lowest
        self.highest = highest

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        """Outputs of the student, and the guided clean images of the teacher."""
        sample = self.draw(batch)
        # Without dropped labels: the student needs no unconditional prediction.
        label: Tensor = batch["label"]
        guidance = random_guidance(batch, self.lowest, self.highest)
        target = self.teacher_denoised(sample.noisy, sample.time, label, guidance)
        student = self.run_on_data(replace(sample, label=label), sample.time, guidance)
        teacher = {"denoised": target, "loss_weight": self.weights(sample.time, self.noise_weight)}
        return student, teacher
