"""DETRDistill: queries of student and teacher are matched, and the matched ones agree."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Objective, Outputs, to_float32
from instil.functional.assignment import assign_columns
from instil.functional.boxes import corners, generalized_iou
from instil.functional.feature_maps import require_dims
from instil.functional.logits import apply_reduction
from instil.items import Items
from instil.roles.query_decoder import QUERY_LOGITS, require_same_class_kind


def detr_distill_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_boxes: Tensor,
    teacher_boxes: Tensor,
    binary: bool = False,
    weights: tuple[float, float, float, float] = (1.0, 5.0, 2.0, 1.0),
    reduction: str = "mean",
) -> Tensor:
    """Hungarian-matching logits distillation (Chang et al. 2023, Section 3.2).

    Every teacher query has its own student query, so that the sum of the divergence of the
    classes, the L1 distance and 1 - GIoU of the boxes is smallest. The loss is this sum, averaged
    over the queries with an object and over the other queries of the teacher.

    Args:
        student_logits: (N, Q_s, C), with Q_s >= Q_t.
        teacher_logits: (N, Q_t, C).
        student_boxes: (N, Q_s, 4), centre and size as fractions of the image.
        teacher_boxes: (N, Q_t, 4).
        binary: whether each class has a sigmoid; otherwise the last class means no object.
        weights: weights of classes, L1, GIoU, and of the queries without an object.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the classes differ, or the student has fewer queries.

    Example:
        >>> import torch
        >>> box = torch.tensor([[[0.5, 0.5, 0.2, 0.2]]])
        >>> detr_distill_loss(torch.zeros(1, 1, 2), torch.tensor([[[2.0, 0.0]]]), box, box)
        tensor(0.3278)
    """
    for logits, side in ((student_logits, "student"), (teacher_logits, "teacher")):
        require_dims(logits, 3, f"{side}_logits")
    if student_logits.shape[-1] != teacher_logits.shape[-1]:
        raise ValueError(
            "student_logits: other classes than the teacher. Expected "
            f"{teacher_logits.shape[-1]}, got {student_logits.shape[-1]}."
        )
    if student_logits.shape[1] < teacher_logits.shape[1]:
        raise ValueError(
            "student_logits: fewer queries than the teacher. Expected at least "
            f"{teacher_logits.shape[1]}, got {student_logits.shape[1]}. Raise num_queries of the "
            "student, or lower that of the teacher."
        )
    student_logits, teacher_logits = to_float32(student_logits), to_float32(teacher_logits)
    student_boxes, teacher_boxes = to_float32(student_boxes), to_float32(teacher_boxes)
    divergence = _pairwise_divergence(student_logits, teacher_logits, binary)
    pairs = student_boxes[:, None], teacher_boxes[:, :, None]
    distance = (pairs[0] - pairs[1]).abs().sum(-1)
    overlap = generalized_iou(corners(pairs[0]), corners(pairs[1]))
    cost = weights[0] * divergence + weights[1] * distance + weights[2] * (1 - overlap)
    column = assign_columns(cost)
    matched = cost.gather(2, column[..., None])[..., 0]
    is_object = _has_object(teacher_logits, binary)
    values = _mean_where(matched, is_object) + weights[3] * _mean_where(matched, ~is_object)
    return apply_reduction(values, reduction)


def _pairwise_divergence(student_logits: Tensor, teacher_logits: Tensor, binary: bool) -> Tensor:
    """KL divergence of each teacher query and each student query (N, Q_t, Q_s)."""
    if not binary:
        teacher_log = teacher_logits.log_softmax(-1)
        student_log = student_logits.log_softmax(-1)
        probability = teacher_log.exp()
        negative_entropy = (probability * teacher_log).sum(-1, keepdim=True)
        return negative_entropy - probability @ student_log.mT
    probability = teacher_logits.sigmoid()
    is_present, is_absent = F.logsigmoid(teacher_logits), F.logsigmoid(-teacher_logits)
    entropies = probability * is_present + (1 - probability) * is_absent
    is_present, is_absent = F.logsigmoid(student_logits), F.logsigmoid(-student_logits)
    cross = probability @ is_present.mT + (1 - probability) @ is_absent.mT
    return entropies.sum(-1, keepdim=True) - cross


def _has_object(teacher_logits: Tensor, binary: bool) -> Tensor:
    """Whether an object is more likely than none for each query."""
    if binary:
        return (teacher_logits > 0).any(-1)
    return teacher_logits.argmax(-1) != teacher_logits.shape[-1] - 1


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    """Mean (N,) of the chosen queries; 0 if there is none."""
    chosen = torch.where(mask, values, 0.0)
    return chosen.sum(1) / mask.sum(1).clamp_min(1)


class DETRDistill(Objective):
    """Matched queries of two detection transformers agree in class and box."""

    items = Items(per_sample=True)
    card = Card(
        "DETRDistill: A Universal Knowledge Distillation Framework for DETR-families",
        "https://arxiv.org/abs/2211.10156",
        "ICCV",
        2023,
        source="logits",
        tasks=("detection",),
        deviations="This is the logits distillation of the last decoder layer. The feature "
        "distillation and the assignment by the teacher's queries are not part of it. A query "
        "has an object if the teacher finds one more likely than none; the paper matches queries "
        "with the labels. The matching cost is the loss itself, so that equal detectors match "
        "themselves.",
        equation=r"\min_{\sigma} \sum_{g \in \{\mathrm{object}, \mathrm{none}\}} \frac{w_g}{|g|} "
        r"\sum_{i \in g} \left[ w_c \mathrm{KL}(p^t_i \Vert p^s_{\sigma(i)}) + w_1 \lVert b^t_i - "
        r"b^s_{\sigma(i)} \rVert_1 + w_2 \left( 1 - \mathrm{GIoU}(b^t_i, b^s_{\sigma(i)}) \right) "
        r"\right]",
        use="Detection transformers (DETR, RT-DETR) of transformers, whose queries have no fixed "
        "order. It has no parameters and needs no labels. Both use a softmax or both a sigmoid.",
        pitfalls="The student must not have fewer queries than the teacher. The matching runs on "
        "the CPU once per step. Early in training matches change from step to step, so keep the "
        "loss on labels.",
    )
    needs: ClassVar = {
        "student": (QUERY_LOGITS, ("query_boxes",)),
        "teacher": (QUERY_LOGITS, ("query_boxes",)),
    }

    def __init__(
        self,
        classes: Annotated[NonNegative, Doc("weight of the divergence of the classes")] = 1.0,
        distance: Annotated[NonNegative, Doc("weight of the L1 distance of the boxes")] = 5.0,
        overlap: Annotated[NonNegative, Doc("weight of 1 - GIoU of the boxes")] = 2.0,
        others: Annotated[
            NonNegative, Doc("weight of the teacher's queries without an object")
        ] = 1.0,
    ):
        super().__init__()
        self.classes = classes
        self.distance = distance
        self.overlap = overlap
        self.others = others

    def build(self, student_outputs: Outputs, teacher_outputs: Outputs) -> None:
        """Check that both detectors have the same kind of classes.

        Raises:
            ValueError: for a softmax and a sigmoid.
        """
        student_role, teacher_role = (self.reads[side][0] for side in ("student", "teacher"))
        require_same_class_kind("detr_distill", student_role, teacher_role)

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        role = self.reads["student"][0]
        return detr_distill_loss(
            student_outputs[role],
            teacher_outputs[role],
            student_outputs["query_boxes"],
            teacher_outputs["query_boxes"],
            role == QUERY_LOGITS[1],
            (self.classes, self.distance, self.overlap, self.others),
            "none",
        )
