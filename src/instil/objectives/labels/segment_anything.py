"""Label loss of SAM: the best of several candidate masks, and the prediction of their overlap."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import (
    UNLABELLED,
    Average,
    Batch,
    Card,
    NonNegative,
    Objective,
    Outputs,
    check_bounds,
    to_float32,
)
from instil.functional.logits import apply_reduction
from instil.functional.masks import mask_dice, mask_focal, mask_iou, resize_masks
from instil.items import Items


@check_bounds
def segment_anything_loss(
    mask_logits: Tensor,
    iou_scores: Tensor,
    target: Tensor,
    focal: NonNegative = 20.0,
    dice: NonNegative = 1.0,
    iou: NonNegative = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Focal and Dice loss of the best candidate, and error of its score (Kirillov et al. 2023).

    Args:
        mask_logits: M candidates for each of P prompts (N, P, M, h, w); they are resized to the
            target (bilinear).
        iou_scores: predicted intersection over union (N, P, M).
        target: 1 for a pixel of the object, 0 for others, -100 for no label (N, H, W).
        focal: weight of the focal loss.
        dice: weight of the Dice loss.
        iou: weight of the squared error of the predicted intersection over union.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``; 0 for a sample without labels.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> masks, scores = torch.zeros(1, 1, 3, 2, 2), torch.ones(1, 1, 3)
        >>> segment_anything_loss(masks, scores, torch.ones(1, 2, 2))
        tensor(2.1521)
    """
    if mask_logits.ndim != 5 or iou_scores.shape != mask_logits.shape[:3] or target.ndim != 3:
        shapes = ", ".join(str(tuple(x.shape)) for x in (mask_logits, iou_scores, target))
        raise ValueError(
            "segment_anything_loss: the shapes do not fit. Expected masks (N, P, M, h, w), scores "
            f"(N, P, M) and a target (N, H, W), got {shapes}"
        )
    logits = resize_masks(to_float32(mask_logits), (target.shape[1], target.shape[2]))
    scores = to_float32(iou_scores)
    is_object = (target == 1)[:, None, None]
    valid = (target != UNLABELLED)[:, None, None]
    target_values = is_object.to(logits.dtype)
    weights = valid.to(logits.dtype)
    values = focal * mask_focal(logits, target_values, weights)
    values = values + dice * mask_dice(logits, target_values, weights)
    overlap = mask_iou(logits > 0, is_object, valid)
    error = (scores - overlap.to(scores.dtype)).square().mean(2)
    has_label = valid.flatten(1).any(1)
    sample = (values.amin(2) + iou * error).mean(1)
    return apply_reduction(torch.where(has_label, sample, 0 * sample), reduction)


class SegmentAnything(Objective):
    """Loss of SAM for the masks of an object; the gradient of a prompt is that of its best mask.

    The value is the mean over the prompts.
    """

    items = Items(labelled=True, per_sample=True)
    card = Card(
        "Segment Anything",
        "https://arxiv.org/abs/2304.02643",
        "ICCV",
        2023,
        source="labels",
        tasks=("promptable_segmentation",),
        zero_at_match=False,
        deviations="The overlap of every candidate is predicted; several points always have "
        "several candidates, and the paper has one candidate for them. Prompts are those of the "
        "data; the scheme prompt_loop adds the paper's points in regions of error.",
        equation=r"\min_m \left[ 20 \, \mathrm{focal}(s_m, y) + \mathrm{dice}(s_m, y) \right] + "
        r"\frac{1}{M} \sum_m \left( \hat u_m - \mathrm{IoU}(s_m, y) \right)^2",
        use="The label loss of promptable segmentation: for a teacher without weights, and for a "
        "student with labels.",
        pitfalls="At evaluation the predicted overlap chooses the mask: without the weight iou the "
        "choice is random.",
    )
    needs: ClassVar = {"student": (("mask_logits",), ("iou_scores",)), "teacher": ()}

    def __init__(
        self,
        focal: Annotated[NonNegative, Doc("weight of the focal loss")] = 20.0,
        dice: Annotated[NonNegative, Doc("weight of the Dice loss")] = 1.0,
        iou: Annotated[
            NonNegative, Doc("weight of the squared error of the predicted overlap")
        ] = 1.0,
        average: Annotated[
            Average,
            Doc("items that the loss is divided by: all of the batch, or the labelled ones"),
        ] = "batch",
    ):
        super().__init__()
        self.focal = focal
        self.dice = dice
        self.iou = iou
        self.average = average
        self.items = Items(labelled=True, per_sample=True, average=average)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return segment_anything_loss(
            student["mask_logits"],
            student["iou_scores"],
            batch["label"],
            self.focal,
            self.dice,
            self.iou,
            "none",
        )
