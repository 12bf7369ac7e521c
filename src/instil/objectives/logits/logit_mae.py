"""Regress the teacher's logits by the size of the differences."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Card, full
from instil.functional.logits import apply_reduction, require_same_logits
from instil.objectives.bases.logit_objective import LogitObjective


def logit_mae_loss(student: Tensor, teacher: Tensor, reduction: str = "mean") -> Tensor:
    """Mean over the classes of the absolute difference of logits (Fang et al. 2019, the student's loss of the imitation stage).

    Logits (..., C) give (...) for reduction ``none``. Raises ValueError where the shapes differ.
    """
    require_same_logits(student, teacher)
    return apply_reduction((full(student) - full(teacher)).abs().mean(-1), reduction)


class LogitMAE(LogitObjective):
    """The student's logits (..., C) regress the teacher's: no softmax, no temperature, and gradients of one size."""

    card = Card(
        "Data-free adversarial distillation",
        "https://arxiv.org/abs/1912.11006",
        "arXiv",
        2019,
        source="logits",
        finite_logits=True,
        tasks=("classification", "regression"),
        labels=("single", "multi", "binary", "real"),
        equation=r"\frac{1}{C} \sum_{c=1}^{C} \lvert z^s_c - z^t_c \rvert",
        use="With the scheme dfad, where images are sought on which both nets differ: the gradient does not fade when they nearly agree. Elsewhere "
        "where a few images with large differences would rule the squares of logit_mse.",
        pitfalls="The gradient is as large beside the match as far from it, so that the learning rate must fall at the end. The level of the logits "
        "is matched too, which a softmax never reads, and unlikely classes count as much as likely ones.",
    )

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return logit_mae_loss(student, teacher, "none")
