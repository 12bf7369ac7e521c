"""Teacher-bounded regression: learn from the label until the teacher is beaten."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import UNLABELLED, Batch, Card, NonNegative, Outputs, drop_gradient, full
from instil.functional.logits import apply_reduction, require_same_logits
from instil.functional.real_labels import real_target
from instil.objectives.bases.real_label_objective import RealLabelObjective


def regression_kd_loss(
    student: Tensor, teacher: Tensor, target: Tensor, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """The student's squared error, summed over D outputs, where with ``margin`` it is above the teacher's, else 0 (Chen et al. 2017, section 3.3).

    Outputs (..., D) and a target of their shape, or (...) for one output, give (...) for reduction ``none``. What is -100 or not a number in the
    target is unknown and left out; an item without any known output is 0 and does not count. Raises ValueError where shapes do not fit.
    """
    require_same_logits(student, teacher)
    wanted, known = real_target(student, target)
    student = drop_gradient(full(student), ~known)
    bounding = torch.where(known, full(teacher), wanted)
    mine, theirs = (
        F.mse_loss(side, wanted, reduction="none").where(known, 0.0).sum(-1)
        for side in (student, bounding)
    )
    return apply_reduction(
        torch.where(mine + margin > theirs, mine, 0.0),
        reduction,
        torch.where(known.any(-1), 0, UNLABELLED),
    )


class RegressionKD(RealLabelObjective):
    """The error to the label, for the samples of which the student is not yet better than the teacher; ``logits`` (..., D) are the D outputs.

    ``margin``: by how much the student must beat the teacher's squared error.

    ``label`` is real, of the outputs' shape; -100 or NaN for unknown. At a match the loss is zero for margin 0, else the student's error.
    """

    card = Card(
        "Learning Efficient Object Detection Models with Knowledge Distillation",
        "https://papers.nips.cc/paper/6676-learning-efficient-object-detection-models-with-knowledge-distillation",
        "NIPS",
        2017,
        source="logits",
        tasks=("regression",),
        labels=("real",),
        deviations="The paper adds it to the smooth L1 loss of the label with weight 0.5; the default margin is ours. "
        "Its class-balanced soft cross-entropy is not part of it.",
        equation=r"\Vert z^s - y \Vert_2^2 \cdot \mathbb{1} \lbrace \Vert z^s - y \Vert_2^2 + m \gt \Vert z^t - y \Vert_2^2 \rbrace",
        use="For real outputs (boxes, poses, depths), which have no soft targets: the teacher is a bound, and samples on which the student beats "
        "it by the margin m teach nothing more. It needs labels.",
        pitfalls="The teacher only selects samples, it is not imitated: keep the label loss beside it (published weight 0.5 beside a smooth L1 "
        "loss). The value jumps between zero and the error at the bound. Squared errors carry the square of the labels' unit, so standardize the "
        "labels. A teacher that is worse than the student switches it off.",
    )
    needs: ClassVar = {"student": (("logits",),), "teacher": (("logits",),)}

    def __init__(self, margin: NonNegative = 0.0):
        super().__init__()
        self.margin = margin

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return regression_kd_loss(
            student["logits"], teacher["logits"], batch["label"], self.margin, "none"
        )
