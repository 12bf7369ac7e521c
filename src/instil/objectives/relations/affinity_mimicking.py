"""Affinity mimicking: image-to-text and text-to-image distributions agree with the teacher's."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from instil.core import Batch, Card, Objective, Outputs
from instil.functional.divergences import softened_kl
from instil.functional.logits import require_same_logits
from instil.functional.similarities import scaled_similarities
from instil.objectives.bases.image_text_objective import WITH_SCALE, unit_pair


def affinity_mimicking_loss(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL divergence of the softmaxes over texts and over images (Wu et al. 2023).

    Mean of the two directions: texts for each image, and images for each text.

    Args:
        student_logits: similarities (N, N) of all images (rows) with all texts, times the
            student's scale.
        teacher_logits: similarities (N, N), times the teacher's scale.

    Returns:
        Scalar.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> affinity_mimicking_loss(torch.zeros(2, 2), torch.eye(2))
        tensor(0.1109)
    """
    require_same_logits(student_logits, teacher_logits, dims=2)
    image_to_text = softened_kl(student_logits, teacher_logits).mean()
    text_to_image = softened_kl(student_logits.T, teacher_logits.T).mean()
    return (image_to_text + text_to_image) / 2


class AffinityMimicking(Objective):
    """TinyCLIP's affinity mimicking: agreement of image-to-text and text-to-image distributions.

    The distributions are over the batch. Each side uses its own ``logit_scale``, and the widths of
    the embeddings may differ.
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
        deviations="A KL divergence, while paper and code omit the teacher's entropy; the "
        "gradient is the same.",
        equation=r"\frac{1}{2N} \sum_{i=1}^{N} \left[ \mathrm{KL}\left(p^t_{i\cdot} \Vert "
        r"p^s_{i\cdot}\right) + \mathrm{KL}\left(q^t_{\cdot i} \Vert q^s_{\cdot i}\right) "
        r"\right], \quad p_{ij} = \frac{e^{\gamma v_i^\top u_j}}{\sum_k e^{\gamma v_i^\top u_k}}, "
        r"\quad q_{ij} = \frac{e^{\gamma v_i^\top u_j}}{\sum_k e^{\gamma v_k^\top u_j}}",
        use="For a dual encoder of images and texts that learns from a larger one, when both see "
        "the same pairs. It compares only N x N similarities, so the widths of the embeddings may "
        "differ and nothing is learned.",
        pitfalls="The loss depends on the batch: each sample is compared only with the texts and "
        "images of the batch, so small batches give a weak signal. Each side uses its own "
        "logit_scale. A high teacher scale (100 in OpenAI's CLIP) makes targets sharp, and the "
        "loss then resembles the contrastive one.",
    )
    needs: ClassVar = WITH_SCALE

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        student_logits, teacher_logits = (
            scaled_similarities(*unit_pair(outputs), outputs["logit_scale"])
            for outputs in (student, teacher)
        )
        return affinity_mimicking_loss(student_logits, teacher_logits)
