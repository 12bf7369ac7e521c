"""Localisation distillation of one-stage detectors, at and around the objects."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, Positive, check_bounds, to_float32
from instil.functional.edge_distributions import edge_divergence
from instil.functional.feature_maps import require_dims
from instil.functional.logits import apply_reduction
from instil.functional.valuable_region import inside_boxes, valuable_region
from instil.items import Items


@check_bounds
def dense_localisation_distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    weight: Tensor,
    temperature: Positive = 10.0,
    reduction: str = "mean",
) -> Tensor:
    """Localisation distillation loss of all anchors of an image (Zheng et al. 2022).

    ``temperature ** 2`` times the KL divergence of the distributions of each edge, summed over the
    edges; weighted mean over the anchors.

    Args:
        student_logits: (N, anchors, 4 * bins); the bins of one edge are adjacent.
        teacher_logits: (N, anchors, 4 * bins).
        weight: weight (N, anchors) of each anchor, >= 0.
        temperature: softmax temperature, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``. It is 0 for an image without weights.

    Raises:
        ValueError: if the shapes differ, or the logits cannot be split into four edges.

    Example:
        >>> import torch
        >>> student, teacher = torch.zeros(1, 2, 8), torch.eye(8)[None, :2]
        >>> weight = torch.tensor([[1.0, 0.0]])
        >>> dense_localisation_distillation_loss(student, teacher, weight, temperature=1.0)
        tensor(0.1109)
    """
    require_dims(weight, 2, "weight")
    values = edge_divergence(student_logits, teacher_logits, temperature=temperature)
    total = weight.sum(1)
    means = (values * weight).sum(1) / total.masked_fill(total == 0, 1)
    return apply_reduction(means, reduction)


class DenseLocalisationDistillation(Objective):
    """KL divergence between the edge distributions of two detectors, at anchors with an object.

    The anchors are those that the student's own assignment gives a box of the labels. Each is
    weighted by the student's largest class probability.

    ``region`` adds anchors around the objects (valuable localisation region): ``inside``, those in
    a box that the assignment left out, weighted in the same way; ``overlap``, those whose DIoU with
    a box is between ``gamma`` times a threshold and the threshold, weighted by their IoU.
    """

    items = Items(per_sample=True)
    card = Card(
        "Localization Distillation for Dense Object Detection",
        "https://arxiv.org/abs/2102.12252",
        "CVPR",
        2022,
        source="logits",
        tasks=("detection",),
        deviations="The authors' code sums over the anchors of the batch, and divides by the "
        "number of bins and of edges; this is the weighted mean over the anchors of an image. "
        "The detector is FCOS with distributions. It has no threshold of overlap, which the "
        "valuable localisation region of the paper reads. inside is the region of the authors' "
        "code for FCOS. overlap is that for GFL, with the thresholds that ATSS would have on "
        "squares of 8 strides around the positions of FCOS; the main region stays that of FCOS. "
        "The distillation of the classes is not part of it.",
        equation=r"\frac{\sum_a w_a\, T^2 \sum_{e=1}^{4} \mathrm{KL}(p^t_{T,ae} \Vert p^s_{T,ae})}"
        r"{\sum_a w_a}, \quad w_a = [a \in \mathrm{fg}] \max_c \sigma(z^s_{ac}) + \lambda\, v_a",
        use="One-stage detectors of torchvision with edge distributions: torchvision:FCOS with "
        "regression: distribution. It needs the boxes of the labels, which decide on the anchors.",
        pitfalls="Both detectors need the same anchors and bins. The authors' weight of 0.25 at T "
        "= 10 does not carry over: it belongs to a sum over the anchors of the batch, of means "
        "over 17 bins and 4 edges. The squares of overlap are larger than small objects on the "
        "first levels.",
    )
    needs: ClassVar = {
        "student": (
            ("edge_logits",),
            ("foreground",),
            ("anchor_logits",),
            ("target_boxes",),
            ("anchors",),
        ),
        "teacher": (("edge_logits",),),
    }

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("softmax temperature")] = 10.0,
        region: Annotated[
            Literal["none", "inside", "overlap"], Doc("further anchors around the objects")
        ] = "none",
        region_weight: Annotated[
            float, Ge(0), Doc("weight of these anchors next to those with an object")
        ] = 0.25,
        gamma: Annotated[
            float, Ge(0), Le(1), Doc("for overlap, smallest DIoU over the threshold of a box")
        ] = 0.25,
    ):
        super().__init__()
        self.temperature = temperature
        self.region = region
        self.region_weight = region_weight
        self.gamma = gamma

    def build(self, student_outputs: Outputs, teacher_outputs: Outputs) -> None:
        """Check that anchors and bins agree.

        Raises:
            ValueError: for other anchors or bins.
        """
        shapes = [tuple(each["edge_logits"].shape) for each in (student_outputs, teacher_outputs)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                "dense_localisation_distillation: student and teacher differ in anchors or bins. "
                f"Expected edge_logits of one shape, got {shapes[0]} and {shapes[1]}. Set the same "
                "bins, strides and image size for both."
            )

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        confidence = to_float32(student_outputs["anchor_logits"]).sigmoid().amax(-1).detach()
        foreground = student_outputs["foreground"] > 0
        weight = confidence * foreground
        if self.region != "none":
            weight = weight + self.region_weight * self._region(student_outputs, confidence)
        return dense_localisation_distillation_loss(
            student_outputs["edge_logits"],
            teacher_outputs["edge_logits"],
            weight,
            self.temperature,
            "none",
        )

    def _region(self, student_outputs: Outputs, confidence: Tensor) -> Tensor:
        """Weights (N, anchors) in the region around the objects, 0 outside."""
        anchors, boxes = (to_float32(student_outputs[role]) for role in ("anchors", "target_boxes"))
        if self.region == "overlap":
            return valuable_region(anchors, boxes, self.gamma)
        is_left_out = inside_boxes(anchors, boxes) & (student_outputs["foreground"] == 0)
        weight: Tensor = confidence * is_left_out
        return weight
