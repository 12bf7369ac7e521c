"""MobileSAM: regression of the teacher's image embedding, without the mask decoder."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from instil.core import Batch, Card, Objective, Outputs, to_float32
from instil.functional.errors import squared_error
from instil.functional.feature_maps import resize
from instil.functional.logits import apply_reduction
from instil.items import Items


def mobile_sam_loss(
    student_embedding: Tensor, teacher_embedding: Tensor, reduction: str = "mean"
) -> Tensor:
    """Mean squared difference of image embeddings (Zhang et al. 2023, section 3.2).

    Args:
        student_embedding: map (N, D, h, w); it is resized to the grid of the teacher.
        teacher_embedding: map (N, D, h', w').
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the widths differ.

    Example:
        >>> import torch
        >>> mobile_sam_loss(torch.zeros(1, 2, 1, 1), torch.ones(1, 2, 3, 3))
        tensor(1.)
    """
    shapes = tuple(student_embedding.shape), tuple(teacher_embedding.shape)
    if any(len(shape) != 4 for shape in shapes) or shapes[0][:2] != shapes[1][:2]:
        raise ValueError(
            "mobile_sam_loss: the embeddings do not fit. Expected maps (N, D, h, w) of one width, "
            f"because one mask decoder reads both, got {shapes[0]} and {shapes[1]}"
        )
    resized = resize(to_float32(student_embedding), tuple(teacher_embedding.shape[2:]))
    return apply_reduction(squared_error(resized, to_float32(teacher_embedding)), reduction)


class MobileSAM(Objective):
    """Regression of the teacher's ``dense_embedding`` (N, D, h, w) of an image.

    The student has the width D of the teacher. Neither prompts nor labels are read.
    """

    items = Items(per_sample=True)
    card = Card(
        "Faster Segment Anything: Towards Lightweight SAM for Mobile Applications",
        "https://arxiv.org/abs/2306.14289",
        "arXiv",
        2023,
        source="features",
        tasks=("promptable_segmentation",),
        deviations="Student and teacher may have different grids: the student's is resized. The "
        "paper records the embeddings of the teacher; here store or precompute does.",
        equation=r"\frac{1}{D P} \sum_p \lVert s_p - t_p \rVert_2^2",
        use="First stage of a small SAM: the student has a small image encoder, and the prompt "
        "encoder and the mask decoder of its teacher, which are frozen. It is also the first stage "
        "of EdgeSAM.",
        pitfalls="All positions weigh the same, also those that no mask depends on: continue with "
        "edge_sam.",
    )
    needs: ClassVar = dict.fromkeys(("student", "teacher"), (("dense_embedding",),))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return mobile_sam_loss(student["dense_embedding"], teacher["dense_embedding"], "none")
