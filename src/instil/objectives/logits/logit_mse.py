"""Mean squared error between the logits of student and teacher."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs, to_float32
from instil.functional.logits import apply_reduction, require_same_logits
from instil.objectives.bases.logit_objective import LogitObjective


def logit_mse_loss(
    student_logits: Tensor, teacher_logits: Tensor, smooth: bool = False, reduction: str = "mean"
) -> Tensor:
    """Mean squared error of logits (Ba & Caruana 2014, Eq. 1, times 2/C).

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        smooth: use the smooth L1 error instead of the squared error.
        reduction: ``"mean"`` or ``"none"`` (one value per item, the mean over its classes).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> logit_mse_loss(torch.zeros(2, 3), 2 * torch.eye(3)[:2])
        tensor(1.3333)
    """
    require_same_logits(student_logits, teacher_logits)
    distance = F.smooth_l1_loss if smooth else F.mse_loss
    errors = distance(to_float32(student_logits), to_float32(teacher_logits), reduction="none")
    return apply_reduction(errors.sum(-1) / student_logits.shape[-1], reduction)


class LogitMSE(LogitObjective):
    """Mean squared error between logits (..., C), without softmax or temperature."""

    card = Card(
        "Do Deep Nets Really Need to be Deep?",
        "https://arxiv.org/abs/1312.6184",
        "NIPS",
        2014,
        source="logits",
        finite_logits=True,
        tasks=("classification", "regression"),
        labels=("single", "multi", "binary", "real"),
        deviations="The paper's half sum over the classes is this mean with weight C/2, which "
        "Kim et al. (IJCAI 2021) use.",
        equation=r"\frac{1}{C} \sum_{c=1}^{C} (z^s_c - z^t_c)^2",
        use="When the student can reach the teacher's logits and only the weight should need "
        "tuning. It has no temperature and needs no labels. It is defined for single-label, "
        "multi-label, binary and real outputs. Kim et al. (IJCAI 2021) report better results "
        "than with kd on CIFAR-100.",
        pitfalls="The loss also matches the mean of the logits, which a softmax ignores. "
        "Unlikely classes count as much as likely ones. Squares of large logits dominate the "
        "batch: smooth bounds the gradient, and standardize removes mean and scale.",
    )

    def __init__(
        self,
        smooth: Annotated[
            bool, Doc("use the smooth L1 error instead of the squared error")
        ] = False,
        standardize: Annotated[
            bool, Doc("standardize the logits of each side over the classes first")
        ] = False,
    ):
        super().__init__(standardize)
        self.smooth = smooth

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        return logit_mse_loss(student_logits, teacher_logits, self.smooth, "none")

    def real_targets(self, teacher: Outputs, batch: Batch) -> Tensor:
        """Return the teacher's numbers (N, D)."""
        for name in ("smooth", "standardize"):
            if getattr(self, name):
                raise ValueError(
                    f"{name}: the loss is then not the squared error of the teacher's numbers. "
                    f"Set {name} to false"
                )
        return to_float32(teacher["logits"])
