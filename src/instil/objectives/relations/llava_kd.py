"""Distributions and relations of the visual tokens of a vision-language model."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Objective, Outputs, check_bounds, to_float32
from instil.functional.divergences import softened_kl
from instil.functional.logits import apply_reduction, require_same_logits
from instil.items import Items
from instil.roles import IMAGE_TOKENS


@check_bounds
def llava_kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    is_visual: Tensor | None = None,
    distribution: NonNegative = 1.0,
    relation: NonNegative = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Visual and relation distillation losses of LLaVA-KD (Cai et al. 2025, section 3.2).

    The KL divergence of the visual tokens (MDist), plus the cosine distance of their
    self-correlation matrices (RDist). With logits ``y`` (V tokens, C classes) the matrix is
    ``y y^T``.

    Args:
        student_logits: (N, T, C).
        teacher_logits: (N, T, C).
        is_visual: mask of the visual tokens (N, T). None: all tokens.
        distribution: weight of the divergence, a mean over the visual tokens.
        relation: weight of the cosine distance.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``. A sample without visual tokens has the loss 0.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> llava_kd_loss(torch.eye(3)[None], torch.ones(1, 3, 3))
        tensor(0.5421)
    """
    require_same_logits(student_logits, teacher_logits, dims=3)
    if is_visual is None:
        is_visual = torch.ones(student_logits.shape[:-1], device=student_logits.device)
    mask = is_visual[..., None] > 0
    # Values of other tokens, such as padding, reach neither the loss nor a gradient.
    student = torch.where(mask, to_float32(student_logits), 0.0)
    teacher = torch.where(mask, to_float32(teacher_logits), 0.0)
    count = (is_visual > 0).sum(1)
    divergence = softened_kl(student, teacher, 1.0).sum(1) / count.clamp_min(1)
    distance = _correlations(student) - _correlations(teacher)
    # Half of the squared distance of unit vectors: their cosine distance, exactly 0 at a match.
    values = distribution * divergence + relation * distance.square().sum((1, 2)) / 2
    return apply_reduction(values, reduction)


def _correlations(logits: Tensor) -> Tensor:
    """Self-correlation matrices (N, T, T) of logits (N, T, C), scaled to length 1."""
    matrix = logits @ logits.mT
    length = torch.linalg.vector_norm(matrix, dim=(1, 2), keepdim=True)
    normalized: Tensor = matrix / length.clamp_min(torch.finfo(matrix.dtype).tiny)
    return normalized


class LLaVAKD(Objective):
    """KL divergence and cosine distance of self-correlations of the visual tokens.

    Logits are (N, T, C). The visual tokens are those in whose place a model has the features of an
    image (``mm_token_type_ids`` of the batch). Without this entry all tokens of a row count.
    """

    card = Card(
        "LLaVA-KD: A Framework of Distilling Multimodal Large Language Models",
        "https://arxiv.org/abs/2410.16236",
        "ICCV",
        2025,
        source="relations",
        tasks=("language",),
        labels=("single",),
        finite_logits=True,
        deviations="The divergence is a mean over the visual tokens of a sample; the paper writes "
        "a sum.",
        equation=r"\frac{w_d}{K} \sum_{k \in \text{image}} \mathrm{KL}(p^t_k \Vert p^s_k) + w_r "
        r"\left(1 - \cos(R^s, R^t)\right), \quad R = y y^\top",
        use="For vision-language models, together with forward_kl and the label loss on the text. "
        "The student also learns what the teacher predicts at the tokens of the image, and which "
        "of them are similar.",
        pitfalls="All logits of both sides are in memory, and a matrix of T x T values for each "
        "sample. Teacher and student need the same tokens for an image.",
    )
    items = Items(per_sample=True)

    def __init__(
        self,
        distribution: Annotated[
            NonNegative, Doc("weight of the divergence of the visual tokens")
        ] = 1.0,
        relation: Annotated[
            NonNegative, Doc("weight of the distance of the self-correlations")
        ] = 1.0,
    ):
        super().__init__()
        self.distribution = distribution
        self.relation = relation

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        student_logits, teacher_logits = student["logits"], teacher["logits"]
        is_visual = batch.get(IMAGE_TOKENS, batch.get("attention_mask"))
        valid = batch.get("valid")
        if is_visual is None and valid is not None and valid.ndim == 2:
            # The targets of an encoder-decoder have no mask of their own.
            is_visual = valid
        if student_logits.ndim == 2:
            student_logits, teacher_logits = student_logits[:, None], teacher_logits[:, None]
            is_visual = None
        return llava_kd_loss(
            student_logits, teacher_logits, is_visual, self.distribution, self.relation, "none"
        )
