"""Affinity mimicking: which texts are near an image, and which images near a text, as in the teacher."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from instil.core import Batch, Card, Objective, Outputs
from instil.objectives.divergences import softened_kl
from instil.objectives.image_text import WITH_SCALE, similarities, unit_pair
from instil.objectives.logit_objective import require_same_logits


def affinity_mimicking_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """KL of the softmaxes over the texts for an image, and over the images for a text, mean of both (Wu et al. 2023, Eq. 3); a scalar.

    Similarities (N, N) of all images (rows) with all texts, times each side's scale. Raises ValueError where the shapes differ.
    """
    require_same_logits(student, teacher)
    return (softened_kl(student, teacher).mean() + softened_kl(student.T, teacher.T).mean()) / 2


class AffinityMimicking(Objective):
    """TinyCLIP's affinity mimicking: image-to-text and text-to-image distributions over the batch, each side with its own ``logit_scale``.

    The widths may differ.
    """

    card = Card(
        "TinyCLIP: CLIP Distillation via Affinity Mimicking and Weight Inheritance",
        "https://arxiv.org/abs/2309.12314",
        "ICCV",
        2023,
        source="relations",
        algorithms=("cross-modal", "contrastive"),
        tasks=("image_text",),
        couples=True,
        deviations="a KL divergence, where paper and code leave the teacher's entropy in; the gradient is the same",
    )
    needs: ClassVar = WITH_SCALE

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine, theirs = (similarities(*unit_pair(side), side["logit_scale"]) for side in (student, teacher))
        return affinity_mimicking_loss(mine, theirs)
