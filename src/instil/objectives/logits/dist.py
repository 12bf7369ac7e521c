"""Match a stronger teacher's preferences, not its probabilities: Pearson correlation over classes and over samples."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import Batch, Card, NonNegative, Positive, full
from instil.functional.logits import require_same_logits
from instil.objectives.bases.logit_objective import LogitObjective


def dist_loss(
    student: Tensor,
    teacher: Tensor,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
    scale: bool = True,
    epsilon: float = 1e-8,
) -> Tensor:
    """beta (1 - correlation over the classes of an item) + gamma (1 - correlation over the items of a class) (Huang et al. 2022).

    Logits (..., C) of all items together give a scalar; ``scale`` is the factor T²; ``epsilon`` is added to the
    product of norms. Raises ValueError for one class and where the shapes differ.
    """
    require_same_logits(student, teacher, classes=2)
    student, teacher = (
        (full(logits) / temperature).softmax(-1).flatten(0, -2) for logits in (student, teacher)
    )
    inter = 1 - _correlation(student, teacher, epsilon).mean()
    intra = 1 - _correlation(student.mT, teacher.mT, epsilon).mean()
    loss = beta * inter + gamma * intra
    return loss * temperature**2 if scale else loss


def _correlation(a: Tensor, b: Tensor, epsilon: float) -> Tensor:
    """Pearson correlation of the rows: (M, C) and (M, C) -> (M,); 0 for a constant row."""
    length = torch.linalg.vector_norm
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    correlation: Tensor = (a * b).sum(-1) / (length(a, dim=-1) * length(b, dim=-1) + epsilon)
    return correlation


class DIST(LogitObjective):
    """The order the teacher sees, among classes and among samples, whatever its confidence; logits (..., C).

    ``beta``: weight of the relation among the classes of an item.
    ``gamma``: weight of the relation among the items of a class.
    ``temperature``: divides the logits first.
    """

    card = Card(
        "Knowledge Distillation from A Stronger Teacher",
        "https://arxiv.org/abs/2205.10536",
        "NeurIPS",
        2022,
        source="logits",
        labels=("single",),
        couples=True,
        deviations="The authors' code multiplies both relations by T², which the paper's appendix does not: scale=False leaves it out. "
        "As in their code 1e-8 is added to the product of norms, so a match costs nothing only up to that.",
        equation=r"T^2 \Big( \beta \big( 1 - \frac{1}{N} \sum_{n} \rho(p^s_{n \cdot}, p^t_{n \cdot}) \big) + \gamma \big( 1 - \frac{1}{C} \sum_{c} "
        r"\rho(p^s_{\cdot c}, p^t_{\cdot c}) \big) \Big), \quad p = \mathrm{softmax}(z / T), \quad \rho \text{ Pearson correlation}",
        use="For a teacher much stronger than the student, or trained with a stronger recipe: correlation asks for the same relations up to a "
        "shift and a scale, which a weak student can meet where it cannot match the probabilities. No labels, no parameters, and no table of "
        "pairs.",
        pitfalls="The relation among items needs a batch in which every class varies; with one item it has no gradient, and with two classes the "
        "relation among classes is 1 or -1 and has none (it is reported less effective for two-class segmentation). Published: beta = gamma = 2 "
        "beside a label loss of 1, at T = 1 on ImageNet and T = 4 on CIFAR-100; the defaults here are 1, to be doubled by the recipe's weight.",
    )

    def __init__(
        self,
        beta: NonNegative = 1.0,
        gamma: NonNegative = 1.0,
        temperature: Positive = 1.0,
        scale: bool = True,
        standardize: bool = False,
    ):
        super().__init__(standardize)
        self.beta, self.gamma, self.temperature, self.scale = beta, gamma, temperature, scale

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return dist_loss(student, teacher, self.beta, self.gamma, self.temperature, self.scale)
