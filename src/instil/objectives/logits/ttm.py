"""Soften the teacher alone: dropping the student's temperature adds an entropy that regularizes it."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Card, Positive, full
from instil.functional.divergences import softened_kl
from instil.functional.logits import apply_reduction, require_same_logits
from instil.objectives.bases.logit_objective import LogitObjective


def ttm_loss(
    student: Tensor,
    teacher: Tensor,
    gamma: float = 0.1,
    weighted: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """KL(transformed teacher || student), the teacher's probabilities raised to ``gamma`` and normalized (Zheng & Yang 2024).

    Logits (..., C) give (...) for reduction ``none``. ``weighted`` multiplies each item by the sum of its powered probabilities, WTTM.
    Raises ValueError for one class and where the shapes differ.
    """
    require_same_logits(student, teacher, classes=2)
    teacher = full(teacher)
    values = softened_kl(student, gamma * teacher)
    return apply_reduction(
        values * (gamma * teacher.log_softmax(-1)).logsumexp(-1).exp() if weighted else values,
        reduction,
    )


class TTM(LogitObjective):
    """The student at temperature 1 follows the teacher at temperature 1 / gamma; logits (..., C).

    ``gamma``: exponent of the teacher's probabilities, 1 / temperature; tuned for each pair, 0.1 (with weight 45) for VGG13 -> VGG8 on CIFAR-100.
    ``weighted``: items of which the teacher is unsure count more: the sum over the classes of its powered probabilities (WTTM).
    """

    card = Card(
        "Knowledge Distillation Based on Transformed Teacher Matching",
        "https://arxiv.org/abs/2402.11148",
        "ICLR",
        2024,
        source="logits",
        labels=("single",),
        zero_at_match=False,
        deviations="No factor T², as in paper and code. At a match the divergence of the softened teacher from itself is left.",
        equation=r"\mathrm{KL}(\tilde{p}^t \Vert p^s), \quad \tilde{p}^t_c = \frac{(p^t_c)^\gamma}{\sum_k (p^t_k)^\gamma}",
        use="kd with the temperature on the teacher's side alone: the student's own predictions are softened, which the paper shows to be kd with "
        "a Rényi entropy added, a regularizer. No labels, no parameters, no more cost than kd.",
        pitfalls="gamma is tuned for each pair together with the weight, which is large for small gamma since there is no T². The target is "
        "softer than any label: the label loss beside it (weight 1 as published) pulls the other way, and the student ends less sure than under "
        "kd.",
    )

    def __init__(self, gamma: Positive = 0.1, weighted: bool = False):
        super().__init__()
        self.gamma, self.weighted = gamma, weighted

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return ttm_loss(student, teacher, self.gamma, self.weighted, "none")
