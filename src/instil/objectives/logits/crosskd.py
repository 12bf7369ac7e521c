"""Cross-head distillation of detectors: student features pass through the teacher's head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Objective, Outputs, check_bounds, to_float32
from instil.functional.boxes import generalized_iou
from instil.functional.feature_maps import resize
from instil.functional.logits import apply_reduction, require_same_logits
from instil.items import Items

PREDICTIONS = (("anchor_logits",), ("anchor_boxes",))
"""Roles of the predictions for all anchors."""
EPSILON = 1e-6
"""Added to standard deviations, as in the authors' code."""


@check_bounds
def cross_kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_boxes: Tensor,
    teacher_boxes: Tensor,
    beta: NonNegative = 1.0,
    box_weight: NonNegative = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Loss of dense predictions that mimic those of a teacher (Wang et al. 2024).

    Quality focal loss of the classes, |p_s - p_t|^beta times the binary cross-entropy, and
    1 - GIoU of the boxes, weighted by the teacher's largest class probability of the anchor. Both
    are sums over the anchors, divided by the sum of these probabilities, at least 1.

    Args:
        student_logits: (N, anchors, C), one logit per class without a background class.
        teacher_logits: (N, anchors, C).
        student_boxes: (N, anchors, 4), left, top, right and bottom.
        teacher_boxes: (N, anchors, 4).
        beta: exponent of the difference of the probabilities, >= 0.
        box_weight: weight of the boxes.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> box = torch.tensor([[[0.0, 0.0, 2.0, 2.0]]])
        >>> cross_kd_loss(torch.zeros(1, 1, 1), torch.ones(1, 1, 1), box, box)
        tensor(0.1602)
    """
    require_same_logits(student_logits, teacher_logits, dims=3)
    student_logits = to_float32(student_logits)
    probability = to_float32(teacher_logits).sigmoid()
    entropy = F.binary_cross_entropy_with_logits(student_logits, probability, reduction="none")
    difference = (student_logits.sigmoid() - probability).abs()
    class_loss = (entropy * difference.pow(beta)).sum((1, 2))
    confidence = probability.amax(-1)
    box_loss = ((1 - generalized_iou(student_boxes, teacher_boxes)) * confidence).sum(1)
    values = (class_loss + box_weight * box_loss) / confidence.sum(1).clamp_min(1)
    return apply_reduction(values, reduction)


def with_statistics_of(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """Give each channel the mean and standard deviation of the teacher's channel.

    Statistics are over the samples and positions of the batch.

    Args:
        student_features: (N, C, H, W).
        teacher_features: (N, C, H, W).
    """
    axes = (0, 2, 3)
    student_features, teacher_features = to_float32(student_features), to_float32(teacher_features)
    centred = student_features - student_features.mean(axes, keepdim=True)
    mean = teacher_features.mean(axes, keepdim=True)
    standardised = centred / (_deviation(centred, axes) + EPSILON)
    return standardised * _deviation(teacher_features - mean, axes) + mean


def _deviation(centred: Tensor, axes: tuple[int, ...]) -> Tensor:
    variance = centred.square().mean(axes, keepdim=True)
    # The gradient of a square root is infinite at 0, where a channel is constant.
    return torch.where(variance > 0, torch.where(variance > 0, variance, 1).sqrt(), 0.0)


class CrossKD(Objective):
    """Cross-head predictions mimic the teacher's predictions for all anchors.

    Features inside the student's head pass through the rest of the teacher's head. Student and
    teacher have the same anchors, number of classes and channels of the head.
    """

    items = Items(per_sample=True)
    card = Card(
        "CrossKD: Cross-Head Knowledge Distillation for Object Detection",
        "https://arxiv.org/abs/2306.11369",
        "CVPR",
        2024,
        source="logits",
        tasks=("detection",),
        couples=True,
        deviations="The sum over the anchors is divided by the sum of the teacher's largest class "
        "probabilities of an image; the authors divide by the number of positive anchors, which "
        "needs labels. The centre-ness of FCOS is not distilled.",
        equation=r"\frac{1}{\sum_a w_a} \sum_a \left[ \sum_c \lvert \hat p_{ac} - p^t_{ac} "
        r"\rvert^\beta\, \mathrm{BCE}(\hat p_{ac}, p^t_{ac}) + w_a \left( 1 - \mathrm{GIoU}(\hat "
        r"b_a, b^t_a) \right) \right], \quad w_a = \max_c p^t_{ac}",
        use="One-stage detectors with the same kind of head (RetinaNet, FCOS). The student's own "
        "predictions follow the labels only, so that labels and teacher do not contradict each "
        "other there. It has no parameters and needs no labels.",
        pitfalls="Both heads need the same channels, number of convolutions and anchors; set the "
        "same image size for both. A position of 0 skips the student's head, which then learns "
        "from the labels only. Statistics of features are over the batch.",
    )
    needs: ClassVar = {
        "student": (("class_features",), ("box_features",), *PREDICTIONS),
        "teacher": (("class_features",), ("box_features",), *PREDICTIONS, ("dense_head",)),
    }

    def __init__(
        self,
        position: Annotated[
            int | None,
            Ge(0),
            Doc(
                "number of convolutions of the student's head before the teacher's head takes "
                "over; None: the student's own predictions mimic those of the teacher"
            ),
        ] = 3,
        beta: Annotated[
            NonNegative, Doc("exponent of the difference of the class probabilities")
        ] = 1.0,
        box_weight: Annotated[NonNegative, Doc("weight of the boxes")] = 1.0,
    ):
        super().__init__()
        if position is None:
            self.needs = dict.fromkeys(("student", "teacher"), PREDICTIONS)  # type: ignore[misc]
        self.position = position
        self.beta = beta
        self.box_weight = box_weight

    def build(self, student_outputs: Outputs, teacher_outputs: Outputs) -> None:
        """Check that the heads fit.

        Raises:
            ValueError: for other anchors, classes, channels or a position beyond the head.
        """
        for role, noun in (("anchor_logits", "anchors and classes"), ("anchor_boxes", "anchors")):
            student_shape = tuple(student_outputs[role].shape)
            teacher_shape = tuple(teacher_outputs[role].shape)
            if student_shape != teacher_shape:
                raise ValueError(
                    f"crosskd: student and teacher differ in {noun}. Expected {role} of one shape, "
                    f"got {student_shape} and {teacher_shape}. Set the same strides, "
                    "anchor_sizes, aspect_ratios and image size for both."
                )
        if self.position is None:
            return
        for role in ("class_features", "box_features"):
            num_positions = min(len(student_outputs[role]), len(teacher_outputs[role]))
            if self.position >= num_positions:
                raise ValueError(
                    f"position: beyond the head. Expected 0 to {num_positions - 1}, got "
                    f"{self.position}."
                )
            student_level = student_outputs[role][self.position][0]
            teacher_level = teacher_outputs[role][self.position][0]
            if student_level.shape[1] != teacher_level.shape[1]:
                raise ValueError(
                    "crosskd: the heads differ in channels. Expected one number for both, got "
                    f"{student_level.shape[1]} and {teacher_level.shape[1]}. Set the same "
                    "pyramid_channels."
                )

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        logits, boxes = student_outputs["anchor_logits"], student_outputs["anchor_boxes"]
        if self.position is not None:
            levels = [
                _aligned(student_outputs[role][self.position], teacher_outputs[role][self.position])
                for role in ("class_features", "box_features")
            ]
            logits, boxes = teacher_outputs["dense_head"].finish(*levels, self.position)
        values = cross_kd_loss(
            logits,
            teacher_outputs["anchor_logits"],
            boxes,
            teacher_outputs["anchor_boxes"],
            self.beta,
            self.box_weight,
            "none",
        )
        return values.sum() / max(1, len(values))


def _aligned(student_levels: Sequence[Tensor], teacher_levels: Sequence[Tensor]) -> list[Tensor]:
    """Student features of all levels with the size and the statistics of the teacher's."""
    aligned = []
    for student_level, teacher_level in zip(student_levels, teacher_levels, strict=True):
        resized = resize(student_level, teacher_level.shape[2:])
        aligned.append(with_statistics_of(resized, teacher_level))
    return aligned
