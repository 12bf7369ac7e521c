"""Mean absolute error between the logits of student and teacher."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Card, to_float32
from instil.functional.logits import apply_reduction, require_same_logits
from instil.objectives.bases.logit_objective import LogitObjective


def logit_mae_loss(
    student_logits: Tensor, teacher_logits: Tensor, reduction: str = "mean"
) -> Tensor:
    """Mean absolute error of logits (Fang et al. 2019, student loss of the imitation stage).

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        reduction: ``"mean"`` or ``"none"`` (one value per item, the mean over its classes).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> logit_mae_loss(torch.zeros(2, 3), torch.eye(3)[:2])
        tensor(0.3333)
    """
    require_same_logits(student_logits, teacher_logits)
    # float32 before the subtraction: differences of half-precision logits lose digits.
    return apply_reduction(
        (to_float32(student_logits) - to_float32(teacher_logits)).abs().mean(-1), reduction
    )


class LogitMAE(LogitObjective):
    """Mean absolute error between logits (..., C), without softmax or temperature.

    The gradient has the same size for every non-zero difference.
    """

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
        use="With the scheme dfad, which searches for images on which both networks differ: the "
        "gradient does not fade when they nearly agree. Also for data where a few images with "
        "large differences would dominate the squares of logit_mse.",
        pitfalls="The gradient is as large near a match as far from it, so the learning rate "
        "must decay at the end. The loss also matches the mean of the logits, which a softmax "
        "ignores. Unlikely classes count as much as likely ones.",
    )

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        return logit_mae_loss(student_logits, teacher_logits, "none")
