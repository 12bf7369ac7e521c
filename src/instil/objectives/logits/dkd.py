"""Decoupled distillation: how sure of the target, and how the rest is shared, each with its own weight."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Card, LabelObjective, NonNegative, Positive, drop_unlabelled_gradient
from instil.functional.divergences import decoupled_kl
from instil.functional.logits import reduced, require_class_target, require_same_logits
from instil.objectives.bases.logit_objective import LogitObjective


def dkd_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    reduction: str = "mean",
) -> Tensor:
    """T² (alpha TCKD + beta NCKD), Eq. 7 of Zhao et al. 2022: KL of (target, not target), and KL among the other classes.

    Logits (..., C), target (...) give (...) for reduction ``none``; -100 gives 0. With two classes NCKD is 0.
    Raises ValueError for one class and where shapes do not fit.
    """
    require_same_logits(student, teacher, classes=2)
    require_class_target(student, target)
    student, teacher = drop_unlabelled_gradient(target, student, teacher)
    tckd, nckd = decoupled_kl(student, teacher, target, temperature)
    return reduced((alpha * tckd + beta * nckd) * temperature**2, reduction, target)


class DKD(LogitObjective, LabelObjective):
    """KD taken apart at the target class, so that a sure teacher does not silence what it knows of the others; logits (..., C).

    ``alpha``: weight of the divergence of (target, not target).
    ``beta``: weight of the divergence among the other classes.
    ``temperature``: divides all logits first.
    """

    card = Card(
        "Decoupled Knowledge Distillation",
        "https://arxiv.org/abs/2203.08679",
        "CVPR",
        2022,
        source="logits",
        labels=("single",),
        deviations="The authors' code lowers the target's logit by 1000 and takes the log of a softmax, infinite where the teacher is sure; "
        "here the class is left out exactly, in log space. Their warm-up over 20 epochs is a schedule of the weight.",
        equation=r"T^2 \big( \alpha \mathrm{KL}(b^t \Vert b^s) + \beta \mathrm{KL}(q^t \Vert q^s) \big), \quad b = (p_y, 1 - p_y), \quad q_c = "
        r"\frac{p_c}{1 - p_y} \text{ for } c \ne y, \quad p = \mathrm{softmax}(z / T)",
        use="Where a sure teacher makes kd weak: kd weighs what the teacher says of the other classes by 1 - p_y, and here that part has a weight "
        "of its own. It needs labels and costs no more than kd.",
        pitfalls="beta is tuned for each pair: 2 for ResNet-56 to ResNet-20, 8 for ResNet-32x4 to ResNet-8x4 on CIFAR-100, 0.5 at T = 1 on "
        "ImageNet. A large beta from the first step is unstable: raise the weight over the first epochs. With two classes beta has no effect. A "
        "wrong label is taught against the teacher.",
    )

    def __init__(
        self,
        alpha: NonNegative = 1.0,
        beta: NonNegative = 8.0,
        temperature: Positive = 4.0,
        standardize: bool = False,
    ):
        super().__init__(standardize)
        self.alpha, self.beta, self.temperature = alpha, beta, temperature

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return dkd_loss(
            student, teacher, batch["label"], self.alpha, self.beta, self.temperature, "none"
        )
