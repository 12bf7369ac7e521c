"""Pearson correlation of predictions, over classes and over samples."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Positive, check_bounds, to_float32
from instil.functional.logits import require_same_logits
from instil.objectives.bases.logit_objective import LogitObjective


@check_bounds
def dist_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    beta: NonNegative = 1.0,
    gamma: NonNegative = 1.0,
    temperature: Positive = 1.0,
    scale: bool = True,
    epsilon: float = 1e-8,
) -> Tensor:
    """DIST loss: correlation of student and teacher predictions (Huang et al. 2022).

    ``beta * inter + gamma * intra``. The inter-class relation is the mean over the items of 1 minus
    the correlation over the classes. The intra-class relation is the mean over the classes of 1
    minus the correlation over the items.

    Args:
        student_logits: (..., C); all leading dimensions count as items.
        teacher_logits: (..., C).
        beta: weight of the inter-class relation.
        gamma: weight of the intra-class relation.
        temperature: softmax temperature, > 0.
        scale: multiply by ``temperature ** 2``.
        epsilon: number added to the product of norms in the correlation.

    Returns:
        Scalar.

    Raises:
        ValueError: if the shapes differ or there is only one class.

    Example:
        >>> import torch
        >>> dist_loss(torch.eye(3), torch.eye(3).roll(1, 0))
        tensor(3.)
    """
    require_same_logits(student_logits, teacher_logits, classes=2, dims=2)
    student = (to_float32(student_logits) / temperature).softmax(-1).flatten(0, -2)
    teacher = (to_float32(teacher_logits) / temperature).softmax(-1).flatten(0, -2)
    inter = 1 - _correlation(student, teacher, epsilon).mean()
    # Transposed: a row holds one class for all items, so this term couples the batch.
    intra = 1 - _correlation(student.mT, teacher.mT, epsilon).mean()
    loss = beta * inter + gamma * intra
    return loss * temperature**2 if scale else loss


def _correlation(a: Tensor, b: Tensor, epsilon: float) -> Tensor:
    """Pearson correlation of the rows of two (M, C) tensors: (M,); 0 for a constant row."""
    a = a - a.mean(-1, keepdim=True)
    b = b - b.mean(-1, keepdim=True)
    norms = torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1)
    correlation: Tensor = (a * b).sum(-1) / (norms + epsilon)
    return correlation


class DIST(LogitObjective):
    """Correlation of predictions, among classes and among samples, regardless of confidence.

    Logits are (..., C).
    """

    card = Card(
        "Knowledge Distillation from A Stronger Teacher",
        "https://arxiv.org/abs/2205.10536",
        "NeurIPS",
        2022,
        source="logits",
        labels=("single",),
        couples=True,
        published_weight=2.0,
        weight_setting="the authors' code, ImageNet, ResNet18 <- ResNet34, T = 1, and CIFAR-100, T "
        "= 4",
        deviations="The authors' code multiplies both relations by T², which the paper's appendix "
        "does not: scale=False omits it. As in their code 1e-8 is added to the product of norms, "
        "so at a match the loss is 0 only up to that number.",
        equation=r"T^2 \Big( \beta \big( 1 - \frac{1}{N} \sum_{n} \rho(p^s_{n \cdot}, p^t_{n "
        r"\cdot}) \big) + \gamma \big( 1 - \frac{1}{C} \sum_{c} \rho(p^s_{\cdot c}, p^t_{\cdot c}) "
        r"\big) \Big), \quad p = \mathrm{softmax}(z / T), \quad \rho \text{ Pearson correlation}",
        use="For a teacher much stronger than the student, or trained with a stronger recipe. "
        "Correlation requires the same relations only up to a shift and a scale, which a weak "
        "student can reach where it cannot match the probabilities. It needs no labels, no "
        "parameters and no table of pairs.",
        pitfalls="The relation among items needs a batch in which every class varies; with one "
        "item it has no gradient. With two classes the relation among classes is 1 or -1 and has "
        "no gradient (it is reported less effective for two-class segmentation).",
    )

    def __init__(
        self,
        beta: Annotated[
            NonNegative, Doc("weight of the relation among the classes of an item")
        ] = 1.0,
        gamma: Annotated[
            NonNegative, Doc("weight of the relation among the items of a class")
        ] = 1.0,
        temperature: Annotated[Positive, Doc("softmax temperature of both sides")] = 1.0,
        scale: Annotated[bool, Doc("multiply the loss by temperature²")] = True,
        standardize: Annotated[
            bool, Doc("standardize the logits of both sides over the classes first")
        ] = False,
    ):
        super().__init__(standardize)
        self.beta = beta
        self.gamma = gamma
        self.temperature = temperature
        self.scale = scale

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        return dist_loss(
            student_logits, teacher_logits, self.beta, self.gamma, self.temperature, self.scale
        )
