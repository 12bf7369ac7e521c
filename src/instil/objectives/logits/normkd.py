"""A temperature for each sample: the spread of its own logits."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Card, Positive, full
from instil.functional.divergences import softened_kl
from instil.functional.logits import (
    STANDARD_DEVIATION_EPSILON,
    apply_reduction,
    class_deviation,
    require_same_logits,
)
from instil.objectives.bases.logit_objective import LogitObjective


def normkd_loss(
    student: Tensor, teacher: Tensor, temperature: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """KL(teacher || student), each side at T times its own standard deviation over the classes (Chi et al. 2023).

    The factor is the square of the teacher's temperature. Logits (..., C) give (...) for reduction ``none``.
    Raises ValueError for fewer than three classes and where the shapes differ.
    """
    require_same_logits(student, teacher)
    student, teacher = full(student), full(teacher)
    mine, theirs = class_deviation(student), class_deviation(teacher)
    student, teacher = (
        student / (mine + STANDARD_DEVIATION_EPSILON),
        teacher / (theirs + STANDARD_DEVIATION_EPSILON),
    )
    values = softened_kl(student, teacher, temperature)
    return apply_reduction(values * (temperature * theirs.squeeze(-1)).square(), reduction)


class NormKD(LogitObjective):
    """KD with a temperature of its own for every item and side, so that all are softened alike; logits (..., C).

    ``temperature``: multiplies the standard deviation of an item's logits; 1 on ImageNet, with weight 0.5 beside half of the label loss.
    """

    card = Card(
        "NormKD: Normalized Logits for Knowledge Distillation",
        "https://arxiv.org/abs/2308.00520",
        "arXiv",
        2023,
        source="logits",
        finite_logits=True,
        algorithms=("adaptive",),
        labels=("single",),
        deviations="As in the code the factor is the teacher's temperature squared, the student's is not in it.",
        equation=r"(T d^t)^2 \mathrm{KL}\big( \mathrm{softmax}(z^t / (T d^t)) \Vert \mathrm{softmax}(z^s / (T d^s)) \big), \quad d = "
        r"\mathrm{std}_c(z)",
        use="kd without one temperature for all: where the spread of the logits differs much between samples or between the nets, each is "
        "softened alike. It is logit_standardization with a factor that follows the teacher's spread. No labels, no parameters.",
        pitfalls="The factor makes samples with widely spread teacher logits count more, with the square of the spread, so a teacher of another "
        "logit scale needs another weight. Published: T = 1 with 0.5 beside 0.5 of the label loss on ImageNet, T = 2 with 0.9 beside 0.1 on "
        "CIFAR-100. It needs three classes or more.",
    )

    def __init__(self, temperature: Positive = 1.0):
        super().__init__()
        self.temperature = temperature

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return normkd_loss(student, teacher, self.temperature, "none")
