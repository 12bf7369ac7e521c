"""The label loss of a box: each of its edges lies between two bins, and these two are likely."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from instil.core import (
    UNLABELLED,
    Batch,
    Card,
    LabelObjective,
    Outputs,
    drop_unlabelled_gradient,
    full,
)
from instil.functional.logits import reduced


def distribution_focal_loss(student: Tensor, box: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy with the two bins around each edge, the nearer one weighing more (Li et al. 2020, Eq. 6), averaged over the edges.

    Logits (..., E * bins), the bins of an edge side by side; ``box`` (..., E), real, in bins from 0 to bins - 1, and cut to that. (...) for
    reduction ``none``; an item of which an edge is -100 is 0 and does not count.
    Raises ValueError where the edges do not share the logits evenly, and for fewer than two bins.
    """
    edges = box.shape[-1]
    if (
        student.shape[:-1] != box.shape[:-1]
        or student.shape[-1] % edges
        or student.shape[-1] < 2 * edges
    ):
        shapes = f"logits {tuple(student.shape)} do not fit a box {tuple(box.shape)}"
        raise ValueError(
            f"{shapes}; they must be (..., edges * bins) with two or more bins, and (..., edges)"
        )
    target = torch.where(has_all_edges(box), 0, UNLABELLED)
    (student,) = drop_unlabelled_gradient(target, student)
    log_probability = full(student).reshape(*box.shape, student.shape[-1] // edges).log_softmax(-1)
    last = log_probability.shape[-1] - 1
    place = box.to(log_probability.dtype).clamp(0, last)
    below = place.floor().clamp_max(last - 1)
    share = place - below
    near = [
        log_probability.gather(-1, (below.long() + more).unsqueeze(-1)).squeeze(-1)
        for more in (0, 1)
    ]
    values = -((1 - share) * near[0] + share * near[1]).mean(-1)
    return reduced(values, reduction, target)


def has_all_edges(box: Tensor) -> Tensor:
    """(...): True where no edge of a box (..., E) is -100."""
    return (box != UNLABELLED).all(-1)


class DistributionFocal(LabelObjective):
    """The student's ``box_logits`` (..., 4 * bins) against the ``box`` (..., 4): its left, top, right and bottom edge, in bins.

    Items without a ``label``, or with an edge of -100, do not count. The value is that of an edge; no less than the entropy of its two bins.
    """

    card = Card(
        "Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for Dense Object Detection",
        "https://arxiv.org/abs/2006.04388",
        "NeurIPS",
        2020,
        source="labels",
        tasks=("detection",),
        zero_at_match=False,
        deviations="The authors sum over locations with their predicted quality as weight; here all count alike.",
        equation=r"-\frac{1}{4} \sum_{e=1}^{4} \Big( (\lceil y_e \rceil - y_e) \log p^s_{e, \lfloor y_e \rfloor} + (y_e - \lfloor y_e \rfloor) "
        r"\log p^s_{e, \lceil y_e \rceil} \Big)",
        use="The label loss of boxes whose edges are distributions over bins, which is what localisation_distillation learns from: beside it, and "
        "beside the label loss of the classes.",
        pitfalls="Edges must lie in the range of the bins: what is beyond is cut to the last one. It asks for likely neighbours, not for a good "
        "overlap: the paper adds an IoU loss, with eight times the weight (2 against 0.25).",
    )
    needs: ClassVar = {"student": (("box_logits",),), "teacher": ()}

    def weight(self, batch: Batch) -> Tensor:
        if "box" not in batch:
            raise ValueError(
                f"DistributionFocal needs 'box' in the batch, which has {', '.join(batch)}"
            )
        return super().weight(batch) * has_all_edges(batch["box"])

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return distribution_focal_loss(student["box_logits"], batch["box"], "none")
