"""Sinkhorn distance between the predictions of student and teacher for a batch."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds, to_float32
from instil.functional.logits import require_same_logits
from instil.objectives.bases.logit_objective import LogitObjective


@check_bounds
def sinkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: Positive = 2.0,
    epsilon: Positive = 0.1,
    iterations: Annotated[int, Ge(1)] = 20,
) -> Tensor:
    """Batch-wise Sinkhorn distance of the predicted distributions (Cui et al. 2024, Eq. 8).

    The cost of moving item ``i`` of the student to item ``j`` of the teacher is the L1 distance of
    their class probabilities. The transport plan is ``exp(-cost / epsilon)``, normalised over its
    rows and columns in turn. The gradient passes through the plan.

    Args:
        student_logits: (..., C), all items of the batch.
        teacher_logits: (..., C).
        temperature: softmax temperature, > 0.
        epsilon: entropic regularisation of the plan, > 0.
        iterations: number of row and column normalisations, >= 1.

    Returns:
        Scalar: the total cost divided by the number of items. It is above 0 at a match.

    Raises:
        ValueError: if the shapes differ or there is only one class.

    Example:
        >>> import torch
        >>> sinkd_loss(torch.zeros(2, 3), torch.eye(3)[:2])
        tensor(0.2371)
    """
    require_same_logits(student_logits, teacher_logits, classes=2, dims=2)
    student_probs = (to_float32(student_logits) / temperature).softmax(-1).flatten(0, -2)
    teacher_probs = (to_float32(teacher_logits) / temperature).softmax(-1).flatten(0, -2)
    # The plan below depends on the cost, and the gradient passes through both.
    cost = torch.cdist(student_probs, teacher_probs, p=1.0)
    log_plan = -cost / epsilon
    # In log space, because exp(-cost / epsilon) underflows for a small epsilon.
    for _ in range(iterations):
        log_plan = log_plan.log_softmax(1).log_softmax(0)
    return (log_plan.exp() * cost).sum() / len(cost)


class SinKD(LogitObjective):
    """Sinkhorn distance between the predictions of student and teacher for a whole batch."""

    card = Card(
        "SinKD: Sinkhorn Distance Minimization for Knowledge Distillation",
        "https://arxiv.org/abs/2402.17110",
        "COLING",
        2024,
        source="logits",
        tasks=("classification",),
        labels=("single",),
        couples=True,
        zero_at_match=False,
        deviations="The authors' code sums the cost over the batch and multiplies it by 0.001, and "
        "its command lines by 0.8; here it is divided by the number of items.",
        equation=r"\frac{1}{N} \sum_{ij} P_{ij} D_{ij}, \quad D_{ij} = \lVert p^s_i - p^t_j "
        r"\rVert_1, \quad P = \mathrm{Sinkhorn}(e^{-D / \epsilon})",
        use="Text classification where KL is unstable because teacher and student overlap "
        "little. The cost stays bounded, and the comparison across the items of a batch adds "
        "information that a loss per item ignores.",
        pitfalls="With one item the plan is 1 and the loss is the L1 distance. A larger epsilon "
        "matches every item with every other one. The paper adds it to the label loss and to kd.",
    )

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("softmax temperature of both sides")] = 2.0,
        epsilon: Annotated[Positive, Doc("entropic regularisation of the transport plan")] = 0.1,
        iterations: Annotated[
            int, Ge(1), Doc("number of row and column normalisations of the plan")
        ] = 20,
        standardize: Annotated[
            bool, Doc("standardize the logits of each side over the classes first")
        ] = False,
    ):
        super().__init__(standardize)
        self.temperature = temperature
        self.epsilon = epsilon
        self.iterations = iterations

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        return sinkd_loss(
            student_logits, teacher_logits, self.temperature, self.epsilon, self.iterations
        )
