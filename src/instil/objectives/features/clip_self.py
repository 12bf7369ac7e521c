"""CLIPSelf: embeddings of regions of the student's map match the teacher's embeddings of crops."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from instil.core import Batch, Card, Objective, Outputs
from instil.functional.directions import l2_normalize
from instil.functional.feature_maps import require_same_shape
from instil.functional.logits import apply_reduction


def clip_self_loss(
    student_regions: Tensor, teacher_regions: Tensor, reduction: str = "mean"
) -> Tensor:
    """Mean of 1 - cosine similarity over the regions of an image (Wu et al. 2024, Eq. 1).

    Args:
        student_regions: embeddings of regions (N, R, D), pooled from a dense map.
        teacher_regions: embeddings of the crops of these regions (N, R, D).
        reduction: ``"mean"`` or ``"none"`` (one value per image).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> clip_self_loss(torch.eye(2)[None], torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]))
        tensor(0.5000)
    """
    student_regions, teacher_regions = require_same_shape(
        student_regions, teacher_regions, "clip_self_loss"
    )
    cosine = (l2_normalize(student_regions) * l2_normalize(teacher_regions)).sum(-1)
    return apply_reduction((1 - cosine).mean(-1), reduction)


class CLIPSelf(Objective):
    """Agreement of region embeddings of a dense map with embeddings of the cropped regions.

    The scheme ``region_crops`` provides ``region_embedding`` (N, R, D) of both sides.
    """

    card = Card(
        "CLIPSelf: Vision Transformer Distills Itself for Open-Vocabulary Dense Prediction",
        "https://arxiv.org/abs/2310.01403",
        "ICLR",
        2024,
        source="features",
        algorithms=("cross-modal",),
        tasks=("image_text",),
        equation=r"\frac{1}{R} \sum_{r=1}^{R} \left( 1 - \cos(s_r, t_r) \right), \quad s_r \text{ "
        r"pooled from the student's map}, t_r \text{ the teacher's embedding of crop } r",
        use="Before open-vocabulary detection or segmentation with the image tower of a CLIP "
        "model: its map then has embeddings that can be compared with texts. Start with model: "
        "teacher and freeze the text network. No text and no label is read.",
        pitfalls="It needs the scheme region_crops and the teacher's width of the embeddings. The "
        "embedding of the whole image may become worse: add clip_feature to keep it.",
    )
    needs: ClassVar = dict.fromkeys(("student", "teacher"), (("region_embedding",),))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return clip_self_loss(student["region_embedding"], teacher["region_embedding"], "none")
