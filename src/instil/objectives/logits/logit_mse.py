"""Regress the teacher's logits."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from instil.core import Batch, Card, full
from instil.functional.logits import apply_reduction, require_same_logits
from instil.objectives.bases.logit_objective import LogitObjective


def logit_mse_loss(
    student: Tensor, teacher: Tensor, smooth: bool = False, reduction: str = "mean"
) -> Tensor:
    """Mean over the classes of the squared difference of logits (Ba & Caruana 2014, Eq. 1, times 2/C); ``smooth``: of the smooth L1 difference.

    Logits (..., C) give (...) for reduction ``none``. Raises ValueError where the shapes differ.
    """
    require_same_logits(student, teacher)
    distance = F.smooth_l1_loss if smooth else F.mse_loss
    return apply_reduction(
        distance(full(student), full(teacher), reduction="none").sum(-1) / student.shape[-1],
        reduction,
    )


class LogitMSE(LogitObjective):
    """The student's logits (..., C) regress the teacher's: no softmax, no temperature.

    ``smooth``: the smooth L1 difference instead of the squared one.
    """

    card = Card(
        "Do Deep Nets Really Need to be Deep?",
        "https://arxiv.org/abs/1312.6184",
        "NIPS",
        2014,
        source="logits",
        finite_logits=True,
        tasks=("classification", "regression"),
        labels=("single", "multi", "binary", "real"),
        deviations="The paper's half sum over the classes is weight C/2 of this mean, which is what Kim et al. (IJCAI 2021) run.",
        equation=r"\frac{1}{C} \sum_{c=1}^{C} (z^s_c - z^t_c)^2",
        use="Where the student can reach the teacher's logits and nothing is to be tuned but the weight: no temperature, no labels, and defined "
        "for single-label, multi-label, binary and real outputs. Kim et al. (IJCAI 2021) report it above kd on CIFAR-100.",
        pitfalls="The level of the logits is matched too, which a softmax never reads, and unlikely classes count as much as likely ones. Squares "
        "of large logits rule the batch: smooth bounds the gradient, standardize takes level and scale off.",
    )

    def __init__(self, smooth: bool = False, standardize: bool = False):
        super().__init__(standardize)
        self.smooth = smooth

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return logit_mse_loss(student, teacher, self.smooth, "none")
