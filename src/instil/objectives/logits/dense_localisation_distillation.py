"""Localisation distillation of one-stage detectors, at the anchors with an object."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, Positive, to_float32
from instil.functional.edge_distributions import edge_divergence
from instil.functional.logits import apply_reduction
from instil.items import Items


def dense_localisation_distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    weight: Tensor,
    temperature: float = 10.0,
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
    values = edge_divergence(student_logits, teacher_logits, temperature=temperature)
    total = weight.sum(1)
    means = (values * weight).sum(1) / total.masked_fill(total == 0, 1)
    return apply_reduction(means, reduction)


class DenseLocalisationDistillation(Objective):
    """KL divergence between the edge distributions of two detectors, at anchors with an object.

    The anchors are those that the student's own assignment gives a box of the labels. Each is
    weighted by the student's largest class probability.
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
        "number of bins and of edges; here the anchors of an image are averaged. The valuable "
        "localisation region around the objects and the distillation of the classes are not part "
        "of it. The detector is FCOS with distributions, the authors' is GFL.",
        equation=r"\frac{\sum_{a \in \mathrm{fg}} w_a\, T^2 \sum_{e=1}^{4} \mathrm{KL}(p^t_{T,ae} "
        r"\Vert p^s_{T,ae})}{\sum_{a \in \mathrm{fg}} w_a}, \quad w_a = \max_c \sigma(z^s_{ac})",
        use="One-stage detectors of torchvision with edge distributions: torchvision:FCOS with "
        "regression: distribution. It needs the boxes of the labels, which decide on the anchors.",
        pitfalls="Both detectors need the same anchors and bins. The authors' weight of 0.25 at T "
        "= 10 belongs to a mean over 17 bins and 4 edges; it corresponds to about 0.0037 here.",
    )
    needs: ClassVar = {
        "student": (("edge_logits",), ("foreground",), ("anchor_logits",)),
        "teacher": (("edge_logits",),),
    }

    def __init__(self, temperature: Annotated[Positive, Doc("softmax temperature")] = 10.0):
        super().__init__()
        self.temperature = temperature

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
        weight = confidence * (student_outputs["foreground"] > 0)
        return dense_localisation_distillation_loss(
            student_outputs["edge_logits"],
            teacher_outputs["edge_logits"],
            weight,
            self.temperature,
            "none",
        )
