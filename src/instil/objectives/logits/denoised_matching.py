"""Distance between the clean images that student and teacher predict."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, to_float32
from instil.functional.diffusion.consistency import Distance, consistency_loss
from instil.functional.feature_maps import require_same_shape

COMPARED_ROLE = "compared"
"""Role of what a scheme compares in place of clean images, such as velocities (N, C, H, W)."""
WEIGHT_ROLE = "loss_weight"
"""Role of the weight of each image (N,), which a scheme sets for the noise level."""


class DenoisedMatching(Objective):
    """Distance between the clean images (N, C, H, W) of both sides, weighted by noise level.

    The scheme decides which images are the targets, and sets the weights. It may compare another
    quantity, such as a velocity. Without such a scheme student and teacher denoise the same noisy
    image, and all weights are 1.
    """

    card = Card(
        "Knowledge Distillation in Iterative Generative Models for Improved Sampling Speed",
        "https://arxiv.org/abs/2101.02388",
        "arXiv",
        2021,
        source="logits",
        tasks=("diffusion",),
        labels=("none", "single"),
        equation=r"w(t)\, d\big(\hat x^s(z_t, t),\, \hat x\big)",
        use="The loss of every scheme of diffusion distillation with a target: progressive, "
        "guidance, ODE and consistency distillation, distribution matching. With the scheme "
        "offline it is the output loss of a smaller denoiser.",
        pitfalls="The distance of pixels averages over images that are equally likely, so that a "
        "one-step student of random pairs is blurred. The huber distance has a gradient of "
        "constant length: it weights all noise levels alike, whatever the size of their errors.",
        deviations="The paper has the squared error. The pseudo-Huber distances are those of "
        "consistency models.",
    )
    needs: ClassVar = dict.fromkeys(("student", "teacher"), ((COMPARED_ROLE, "denoised"),))

    def __init__(
        self,
        distance: Annotated[
            Distance,
            Doc(
                "l2: mean squared error; l1: mean absolute error; huber: pseudo-Huber distance of "
                "the whole image; entry_huber: its mean over entries"
            ),
        ] = "l2",
        huber_width: Annotated[
            float,
            Ge(0),
            Doc("error at which the pseudo-Huber distance turns linear. 0: the plain distance"),
        ] = 0.01,
    ):
        super().__init__()
        self.distance = distance
        self.huber_width = huber_width

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        student_denoised, teacher_denoised = require_same_shape(
            to_float32(student[self.reads["student"][0]]),
            to_float32(teacher[self.reads["teacher"][0]]),
            "denoised_matching",
        )
        weight: Tensor | None = teacher.get(WEIGHT_ROLE)
        values = consistency_loss(
            student_denoised, teacher_denoised, None, self.distance, self.huber_width
        )
        return values if weight is None else torch.where(weight > 0, weight * values, 0.0)
