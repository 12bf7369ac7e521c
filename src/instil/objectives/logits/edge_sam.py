"""EdgeSAM: masks of the student and of the teacher for the same prompts."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Objective, Outputs, check_bounds, to_float32
from instil.functional.logits import apply_reduction
from instil.functional.masks import mask_cross_entropy, mask_dice, resize_masks
from instil.items import Items


@check_bounds
def edge_sam_loss(
    student_masks: Tensor,
    teacher_masks: Tensor,
    bce: NonNegative = 5.0,
    dice: NonNegative = 5.0,
    hard: bool = True,
    reduction: str = "mean",
) -> Tensor:
    """Binary cross-entropy and Dice distance to the teacher's masks (Zhou et al. 2025).

    The value is the mean over prompts and candidates.

    Args:
        student_masks: logits (N, P, M, h, w); they are resized to the teacher's (bilinear).
        teacher_masks: logits (N, P, M, h', w').
        bce: weight of the cross-entropy.
        dice: weight of the Dice distance.
        hard: whether the target is the teacher's mask; False for its probabilities.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if samples, prompts or candidates differ.

    Example:
        >>> edge_sam_loss(torch.zeros(1, 1, 1, 1, 2), torch.ones(1, 1, 1, 1, 2))
        tensor(4.7157)
    """
    if student_masks.ndim != 5 or student_masks.shape[:3] != teacher_masks.shape[:3]:
        raise ValueError(
            "edge_sam_loss: the masks do not fit. Expected (N, P, M, h, w) with the prompts and "
            f"candidates of the teacher, {tuple(teacher_masks.shape)}, got "
            f"{tuple(student_masks.shape)}"
        )
    teacher = to_float32(teacher_masks)
    student = resize_masks(to_float32(student_masks), (teacher.shape[3], teacher.shape[4]))
    target = (teacher > 0).to(student.dtype) if hard else teacher.sigmoid().to(student.dtype)
    valid = torch.ones_like(target)
    values = bce * mask_cross_entropy(student, target, valid)
    values = values + dice * mask_dice(student, target, valid)
    return apply_reduction(values.mean((1, 2)), reduction)


class EdgeSAM(Objective):
    """Agreement of masks for the same prompts: those of the data, and those of ``prompt_loop``.

    ``mask_logits`` are (N, P, M, h, w) for P prompts with M candidates each. No label is read.
    """

    items = Items(per_sample=True)
    card = Card(
        "EdgeSAM: Prompt-In-the-Loop Distillation for SAM",
        "https://arxiv.org/abs/2312.06660",
        "IJCV",
        2025,
        source="logits",
        tasks=("promptable_segmentation",),
        zero_at_match=False,
        deviations="The paper's module that learns priors of granularity is left out.",
        equation=r"\frac{1}{P M} \sum_{p, m} \left[ w_b \, \mathrm{BCE}(s_{pm}, [t_{pm} > 0]) + "
        r"w_d \, \mathrm{dice}(s_{pm}, [t_{pm} > 0]) \right]",
        use="Second stage of a small SAM, after mobile_sam, with the scheme prompt_loop: image "
        "encoder and mask decoder learn what the masks depend on.",
        pitfalls="Candidates are compared one by one, in the order of the mask decoder: the "
        "student starts with the decoder of its teacher.",
    )
    needs: ClassVar = dict.fromkeys(("student", "teacher"), (("mask_logits",),))

    def __init__(
        self,
        bce: Annotated[NonNegative, Doc("weight of the binary cross-entropy")] = 5.0,
        dice: Annotated[NonNegative, Doc("weight of the Dice distance")] = 5.0,
        hard: Annotated[
            bool, Doc("whether the target is the teacher's mask; false: its probabilities")
        ] = True,
    ):
        super().__init__()
        self.bce = bce
        self.dice = dice
        self.hard = hard

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        masks = student["mask_logits"], teacher["mask_logits"]
        return edge_sam_loss(*masks, self.bce, self.dice, self.hard, "none")
