"""Distribution focal loss: label loss of box edges predicted as distributions over bins."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import UNLABELLED, Average, Batch, Card, Objective, Outputs, to_float32
from instil.functional.logits import apply_reduction
from instil.items import Items, drop_unlabelled_gradient


def distribution_focal_loss(student_logits: Tensor, box: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy with the two bins around each edge of a box (Li et al. 2020, Eq. 6).

    The nearer bin has the larger weight. The loss is averaged over the edges.

    Args:
        student_logits: (..., E * bins); the bins of an edge are contiguous.
        box: real positions of the edges (..., E) in bins, clamped to [0, bins - 1]. ``-100`` marks
            an unlabelled edge; the loss of its item is 0.
        reduction: ``"mean"`` over the labelled items, or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the logits cannot be divided among the edges, or there are fewer than two
            bins.

    Example:
        >>> import torch
        >>> distribution_focal_loss(torch.eye(6)[:1], torch.tensor([[0.5, 2.0]]))
        tensor(1.0750)
    """
    _require_bins(student_logits, box)
    target = torch.where(has_all_edges(box), 0, UNLABELLED)
    (student_logits,) = drop_unlabelled_gradient(target, student_logits)
    num_bins = student_logits.shape[-1] // box.shape[-1]
    log_probability = to_float32(student_logits).reshape(*box.shape, num_bins).log_softmax(-1)
    position = box.to(log_probability.dtype).clamp(0, num_bins - 1)
    # The lower bin is never the last one, so that the upper bin exists.
    lower = position.floor().clamp_max(num_bins - 2)
    upper_weight = position - lower
    lower_index = lower.long().unsqueeze(-1)
    lower_log = log_probability.gather(-1, lower_index).squeeze(-1)
    upper_log = log_probability.gather(-1, lower_index + 1).squeeze(-1)
    values = -((1 - upper_weight) * lower_log + upper_weight * upper_log).mean(-1)
    return apply_reduction(values, reduction, target)


def _require_bins(student_logits: Tensor, box: Tensor) -> None:
    """Raise ValueError unless the logits are two or more bins for each edge of the box."""
    num_edges = box.shape[-1]
    width = student_logits.shape[-1]
    same_items = student_logits.shape[:-1] == box.shape[:-1]
    if not same_items or width % num_edges or width < 2 * num_edges:
        shapes = f"{tuple(student_logits.shape)} and {tuple(box.shape)}"
        raise ValueError(
            "student_logits, box: the shapes do not fit. Expected (..., edges * bins) with two or "
            f"more bins, and (..., edges), got {shapes}."
        )


def has_all_edges(box: Tensor) -> Tensor:
    """Mask (...) of the boxes (..., E) without an edge of -100."""
    return (box != UNLABELLED).all(-1)


class DistributionFocal(Objective):
    """Distribution focal loss of the student's ``box_logits`` (..., 4 * bins).

    The target ``box`` (..., 4) has the left, top, right and bottom edge, in bins. Items without a
    ``label``, or with an edge of -100, do not count. The value is the mean over the edges; it is
    at least the entropy of the two bins.
    """

    items = Items(labelled=True)
    card = Card(
        "Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for Dense "
        "Object Detection",
        "https://arxiv.org/abs/2006.04388",
        "NeurIPS",
        2020,
        source="labels",
        tasks=("detection",),
        zero_at_match=False,
        deviations="The authors sum over locations with their predicted quality as weight; here "
        "all locations have equal weight.",
        equation=r"-\frac{1}{4} \sum_{e=1}^{4} \Big( (\lceil y_e \rceil - y_e) \log p^s_{e, "
        r"\lfloor y_e \rfloor} + (y_e - \lfloor y_e \rfloor) \log p^s_{e, \lceil y_e \rceil} \Big)",
        use="The label loss of boxes whose edges are distributions over bins, which "
        "localisation_distillation needs. Combine it with that loss and with the label loss of the "
        "classes.",
        pitfalls="Edges must lie in the range of the bins: values outside are clamped to the last "
        "bin. It rewards probable neighbouring bins, not a good overlap: the paper adds an IoU "
        "loss with eight times the weight (2 against 0.25).",
    )
    needs: ClassVar = {"student": (("box_logits",),), "teacher": ()}

    def __init__(
        self,
        average: Annotated[
            Average,
            Doc(
                "items that the loss is divided by: all of the batch, or the labelled ones. Take "
                "labelled for a detector where only locations with an object have a box"
            ),
        ] = "batch",
    ) -> None:
        super().__init__()
        self.average = average
        self.items = Items(labelled=True, average=average)

    def weight(self, batch: Batch) -> Tensor:
        if "box" not in batch:
            raise ValueError(
                f"DistributionFocal needs 'box' in the batch, which has {', '.join(batch)}."
            )
        return super().weight(batch) * has_all_edges(batch["box"])

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return distribution_focal_loss(student["box_logits"], batch["box"], "none")
