"""Regression of the teacher's image and text embeddings."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Card, Outputs
from instil.functional.errors import squared_error
from instil.functional.feature_maps import require_same_shape
from instil.functional.logits import apply_reduction
from instil.objectives.bases.image_text_objective import ImageTextObjective, unit_pair


def clip_feature_loss(
    student_image: Tensor,
    student_text: Tensor,
    teacher_image: Tensor,
    teacher_text: Tensor,
    reduction: str = "mean",
) -> Tensor:
    """Feature distillation loss of CLIP-KD (Yang et al. 2024, Eq. 6).

    Mean squared difference over the entries of the embeddings, image term plus text term.

    Args:
        student_image: image embeddings (N, D) of unit length.
        student_text: text embeddings (N, D) of unit length.
        teacher_image: image embeddings (N, D) of unit length.
        teacher_text: text embeddings (N, D) of unit length.
        reduction: ``"mean"`` or ``"none"`` (one value per pair of image and text).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> image, text = torch.eye(2), torch.tensor([[0.6, 0.8], [1.0, 0.0]])
        >>> clip_feature_loss(image, text, image, image)
        tensor(0.7000)
    """
    student_image, teacher_image = require_same_shape(
        student_image, teacher_image, "clip_feature_loss, image"
    )
    student_text, teacher_text = require_same_shape(
        student_text, teacher_text, "clip_feature_loss, text"
    )
    image_error = squared_error(student_image, teacher_image)
    return apply_reduction(image_error + squared_error(student_text, teacher_text), reduction)


class CLIPFeature(ImageTextObjective):
    """Feature distillation (FD) of CLIP-KD: regression of both unit embeddings of the teacher.

    The student's embeddings are projected first if the widths differ. The published weight is 2000.
    """

    card = Card(
        "CLIP-KD: An Empirical Study of CLIP Model Distillation",
        "https://arxiv.org/abs/2307.12732",
        "CVPR",
        2024,
        source="features",
        algorithms=("cross-modal",),
        tasks=("image_text",),
        published_weight=2000.0,
        weight_setting="CLIP-KD, CC3M and CC12M",
        equation=r"\frac{1}{D} \left( \lVert v^s - v^t \rVert_2^2 + \lVert u^s - u^t \rVert_2^2 "
        r"\right), \quad v, u \text{ unit embeddings of image and text}",
        use="For a small CLIP model distilled from a large one. It is the simplest loss of the "
        "paper, which finds that it works surprisingly well. Items are independent, so it works "
        "with small batches; add it to the contrastive loss. It adds at most two linear layers.",
        pitfalls="A squared distance is at most 4 and is divided by D, so that the weight must be "
        "large. The projection is not exported: a student of another width has its own embedding "
        "space, which is incompatible with the teacher's embeddings.",
    )

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        student_image, student_text = self.projected(student_outputs)
        teacher_image, teacher_text = unit_pair(teacher_outputs)
        return clip_feature_loss(
            student_image, student_text, teacher_image, teacher_text, reduction="none"
        )
