"""Affinity mimicking: which texts are near an image, and which images near a text, as in the teacher."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from instil.core import Batch, Card, Objective, Outputs
from instil.functional.divergences import softened_kl
from instil.functional.logits import require_same_logits
from instil.functional.similarities import scaled_similarities
from instil.objectives.bases.image_text_objective import WITH_SCALE, unit_pair


def affinity_mimicking_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """KL of the softmaxes over the texts for an image, and over the images for a text, mean of both (Wu et al. 2023); a scalar.

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
        equation=r"\frac{1}{2N} \sum_{i=1}^{N} \left[ \mathrm{KL}\left(p^t_{i\cdot} \Vert p^s_{i\cdot}\right) + \mathrm{KL}\left(q^t_{\cdot i} "
        r"\Vert q^s_{\cdot i}\right) \right], \quad p_{ij} = \frac{e^{\gamma v_i^\top u_j}}{\sum_k e^{\gamma v_i^\top u_k}}, \quad q_{ij} "
        r"= \frac{e^{\gamma v_i^\top u_j}}{\sum_k e^{\gamma v_k^\top u_j}}",
        use="For a dual encoder of images and texts that learns from a larger one, when both see the same pairs. It compares N x N "
        "similarities alone, so that the widths of the embeddings may differ and nothing is learned in between.",
        pitfalls="It depends on the batch: texts and images of other samples are all that is compared, and small batches say little. Every side "
        "uses its own logit_scale; a high one at the teacher (100 in OpenAI's CLIP) makes targets sharp, and the loss then resembles the "
        "contrastive one.",
    )
    needs: ClassVar = WITH_SCALE

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine, theirs = (
            scaled_similarities(*unit_pair(side), side["logit_scale"])
            for side in (student, teacher)
        )
        return affinity_mimicking_loss(mine, theirs)
