"""Normalized distillation: the teacher's target probability weighs the label loss, its other classes are renormalized."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Card, LabelObjective, NonNegative, Positive, drop_unlabelled_gradient
from instil.functional.divergences import rest_cross_entropy, target_cross_entropy
from instil.functional.logits import apply_reduction, require_class_target, require_same_logits
from instil.objectives.bases.logit_objective import LogitObjective


def nkd_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    temperature: float = 1.0,
    gamma: float = 1.5,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy of the target class weighted by the teacher, plus gamma T² times that of the normalized others (Yang et al. 2023).

    Logits (..., C), target (...) give (...) for reduction ``none``; -100 gives 0. The temperature acts on the others only.
    Raises ValueError for one class and where shapes do not fit.
    """
    require_same_logits(student, teacher, classes=2)
    require_class_target(student, target)
    student, teacher = drop_unlabelled_gradient(target, student, teacher)
    towards_target = target_cross_entropy(student, teacher, target)
    towards_rest = rest_cross_entropy(student, teacher, target, temperature)
    return apply_reduction(
        towards_target + gamma * temperature**2 * towards_rest, reduction, target
    )


class NKD(LogitObjective, LabelObjective):
    """The label's cross-entropy as sure as the teacher is, and the other classes as it shares them; logits (..., C).

    ``temperature``: divides the logits of the other classes.
    ``gamma``: weight of the other classes.
    """

    card = Card(
        "From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with Normalized Loss and Customized Soft Labels",
        "https://arxiv.org/abs/2303.13005",
        "ICCV",
        2023,
        source="logits",
        labels=("single",),
        zero_at_match=False,
        deviations="A cross-entropy, as in paper and code: at a match the teacher's entropy is left.",
        equation=r"-p^t_y \log p^s_y - \gamma T^2 \sum_{c \ne y} q^t_c \log q^s_c, \quad q_c = \frac{e^{z_c / T}}{\sum_{k \ne y} e^{z_k / T}}",
        use="Like dkd, for a sure teacher whose view of the other classes should not be silenced; the label's part is weighed by the teacher's "
        "confidence, so samples that the teacher gets wrong are taught less firmly. It needs labels and costs no more than kd.",
        pitfalls="The authors add the plain cross-entropy beside it. It is a cross-entropy: its value does not go to zero at a match and says "
        "little about how far the student is. With two classes the second term is zero. A low p^t_y takes the label's part away, and the second "
        "term goes on.",
    )

    def __init__(
        self, temperature: Positive = 1.0, gamma: NonNegative = 1.5, standardize: bool = False
    ):
        super().__init__(standardize)
        self.temperature, self.gamma = temperature, gamma

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return nkd_loss(student, teacher, batch["label"], self.temperature, self.gamma, "none")
