"""KD-DETR: both decoders look at the same points, and their predictions agree."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    Batch,
    Card,
    NonNegative,
    Objective,
    Outputs,
    Positive,
    check_bounds,
    to_float32,
)
from instil.functional.boxes import corners, generalized_iou
from instil.functional.divergences import softened_kl
from instil.functional.keyed_random import keyed_normal
from instil.functional.logits import apply_reduction, require_same_logits
from instil.items import Items
from instil.roles.query_decoder import QUERY_LOGITS, QueryDecoder, require_same_class_kind


@check_bounds
def kd_detr_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_boxes: Tensor,
    teacher_boxes: Tensor,
    binary: bool = False,
    weights: tuple[float, float, float] = (1.0, 5.0, 2.0),
    temperature: Positive = 10.0,
    reduction: str = "mean",
) -> Tensor:
    """Loss of two predictions for the same distillation points (Wang et al. 2024).

    Weighted sum of the KL divergence of the softmaxes over the classes, divided by their number
    and times ``temperature ** 2``; the mean absolute difference of the box; and 1 - GIoU. Points
    are weighted by the teacher's largest class probability.

    Args:
        student_logits: (N, Q, C).
        teacher_logits: (N, Q, C).
        student_boxes: (N, Q, 4), centre and size as fractions of the image.
        teacher_boxes: (N, Q, 4).
        binary: whether each class has a sigmoid; otherwise the last class means no object. It
            decides on the weights of the points only.
        weights: weights of classes, distance and GIoU.
        temperature: softmax temperature, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> box = torch.tensor([[[0.5, 0.5, 0.2, 0.2]]])
        >>> kd_detr_loss(torch.zeros(1, 1, 2), torch.tensor([[[2.0, 0.0]]]), box, box)
        tensor(0.2488)
    """
    require_same_logits(student_logits, teacher_logits, dims=3)
    student_logits, teacher_logits = to_float32(student_logits), to_float32(teacher_logits)
    student_boxes, teacher_boxes = to_float32(student_boxes), to_float32(teacher_boxes)
    divergence = softened_kl(student_logits, teacher_logits, temperature) * temperature**2
    distance = (student_boxes - teacher_boxes).abs().mean(-1)
    overlap = generalized_iou(corners(student_boxes), corners(teacher_boxes))
    num_classes = student_logits.shape[-1]
    costs = weights[0] / num_classes * divergence + weights[1] * distance
    costs = costs + weights[2] * (1 - overlap)
    foreground = _foreground(teacher_logits, binary)
    total = foreground.sum(1)
    # All probabilities may underflow to 0, and then no point is a foreground.
    values = (costs * foreground).sum(1) / torch.where(total > 0, total, 1)
    return apply_reduction(values, reduction)


def _foreground(teacher_logits: Tensor, binary: bool) -> Tensor:
    """Largest probability (N, Q) of a class, without that of no object."""
    if binary:
        return teacher_logits.sigmoid().amax(-1)
    return teacher_logits.softmax(-1)[..., :-1].amax(-1)


class KDDETR(Objective):
    """Decoders of student and teacher predict the same for the same points.

    General points are drawn at random for each image and step, from a normal distribution as
    queries are before training. Specific points are the queries of the teacher. Each layer of the
    student's decoder learns from the last layer of the teacher's.
    """

    items = Items(per_sample=True)
    card = Card(
        "KD-DETR: Knowledge Distillation for Detection Transformer with Consistent Distillation "
        "Points Sampling",
        "https://arxiv.org/abs/2211.08071",
        "CVPR",
        2024,
        source="logits",
        tasks=("detection",),
        tags=("teacher_modules",),
        deviations="The formulas follow public code that calls itself the official one "
        "(github.com/Myleswork/KD-DETR, DAB-DETR); the repository that the paper names has no "
        "code, and the text of the paper was not available. The class term of that code is a sum "
        "over the points of the batch; here it is divided by the sum of the weights, as the box "
        "terms are, and both sums are over an image. The code draws general points for a batch, "
        "here each image has its own. Learned queries of another width pass through a linear "
        "layer. The contents of an RT-DETR query are the detector's own encoder features at the "
        "centre of the box. With num_patterns (DAB-DETR), pattern i of the student "
        "learns from pattern i of the teacher. The code has no RT-DETR and no DETR. The "
        "distillation to other kinds of detectors is not part of it.",
        equation=r"\sum_{l} \frac{\sum_i w_i \left[ \frac{\lambda_c}{C} T^2 \mathrm{KL}(p^t_{T,i} "
        r"\Vert p^{s,l}_{T,i}) + \frac{\lambda_1}{4} \lVert b^t_i - b^{s,l}_i \rVert_1 + "
        r"\lambda_g (1 - \mathrm{GIoU}(b^t_i, b^{s,l}_i)) \right]}{\sum_i w_i}, \quad w_i = "
        r"\max_c p^t_{ic}",
        use="Detection transformers of transformers: DETR, DAB-DETR and RT-DETR. Queries need no "
        "matching, and the student may have another number of queries. It needs no labels. Use it "
        "where both decoders read points of the same kind (boxes, or learned queries).",
        pitfalls="The student's decoder runs once more for each kind of points, and the teacher's "
        "for general ones. Learned queries of DETR have no meaning that student and teacher share, "
        "so that random ones are far from those that a trained teacher knows; reference boxes do. "
        "The sum over the layers grows with the student's depth. Decoders run outside the forward "
        "pass of the model; training with sharded weights was not tested.",
    )
    needs: ClassVar = {
        "student": (("query_decoder",), ("query_memory",)),
        "teacher": (
            QUERY_LOGITS,
            ("query_boxes",),
            ("query_points",),
            ("query_decoder",),
            ("query_memory",),
        ),
    }

    def __init__(
        self,
        num_points: Annotated[int, Ge(1), Doc("number of general points of an image")] = 300,
        general: Annotated[NonNegative, Doc("weight of the general points")] = 1.0,
        specific: Annotated[NonNegative, Doc("weight of the teacher's queries")] = 1.0,
        classes: Annotated[NonNegative, Doc("weight of the divergence of the classes")] = 1.0,
        distance: Annotated[NonNegative, Doc("weight of the L1 distance of the boxes")] = 5.0,
        overlap: Annotated[NonNegative, Doc("weight of 1 - GIoU of the boxes")] = 2.0,
        temperature: Annotated[Positive, Doc("softmax temperature of the classes")] = 10.0,
    ):
        super().__init__()
        if not general and not specific:
            raise ValueError("general, specific: both are 0. Expected at least one above 0.")
        self.num_points = num_points
        self.general = general
        self.specific = specific
        self.classes = classes
        self.distance = distance
        self.overlap = overlap
        self.temperature = temperature
        self.translate: nn.Module = nn.Identity()

    def build(self, student_outputs: Outputs, teacher_outputs: Outputs) -> None:
        """Check the kinds of the classes, and make a layer for points of another width.

        Raises:
            ValueError: for a softmax and a sigmoid, and for different numbers of patterns.
        """
        student, teacher = (each["query_decoder"] for each in (student_outputs, teacher_outputs))
        student_role, teacher_role = (QUERY_LOGITS[each.is_binary] for each in (student, teacher))
        require_same_class_kind("kd_detr", student_role, teacher_role)
        if student.num_patterns != teacher.num_patterns:
            raise ValueError(
                "kd_detr: the decoders have different numbers of predictions for a point. Expected "
                f"one number of patterns, got {student.num_patterns} of the student and "
                f"{teacher.num_patterns} of the teacher. Set num_patterns of the student to that "
                "of the teacher."
            )
        if student.num_values != teacher.num_values:
            memory = student_outputs["query_memory"][0]
            self.translate = nn.Linear(
                teacher.num_values,
                student.num_values,
                device=memory.device,
                dtype=to_float32(memory).dtype,
            )

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        values = []
        teacher_points = to_float32(teacher_outputs["query_points"]).detach()
        if self.specific:
            logits = teacher_outputs[self.reads["teacher"][0]]
            targets = logits, teacher_outputs["query_boxes"]
            values.append(self.specific * self._loss(student_outputs, targets, teacher_points))
        if self.general:
            num_values = teacher_points.shape[-1]
            draws = keyed_normal(batch, self.num_points * num_values, f"{self.stream}.points")
            points = draws.view(-1, self.num_points, num_values)
            with torch.no_grad():
                layers = teacher_outputs["query_decoder"].decode(
                    teacher_outputs["query_memory"], points
                )
            last = layers[0][-1], layers[1][-1]
            values.append(self.general * self._loss(student_outputs, last, points))
        return torch.stack(values).sum(0)

    def _loss(self, outputs: Outputs, targets: tuple[Tensor, Tensor], points: Tensor) -> Tensor:
        """Loss (N,) of all layers of the student for one kind of points."""
        decoder: QueryDecoder = outputs["query_decoder"]
        logits, boxes = decoder.decode(outputs["query_memory"], self.translate(points))
        weights = self.classes, self.distance, self.overlap
        values = [
            kd_detr_loss(
                layer_logits,
                targets[0].detach(),
                layer_boxes,
                targets[1].detach(),
                decoder.is_binary,
                weights,
                self.temperature,
                "none",
            )
            for layer_logits, layer_boxes in zip(logits, boxes, strict=True)
        ]
        return torch.stack(values).sum(0)
