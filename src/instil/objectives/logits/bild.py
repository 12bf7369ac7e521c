"""Pairwise differences of the largest logits, for the top classes of teacher and student."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds, to_float32
from instil.functional.divergences import kl_divergence
from instil.functional.logits import apply_reduction, require_same_logits
from instil.functional.tokens.terms import FLOOR
from instil.objectives.bases.logit_objective import LogitObjective


@check_bounds
def bild_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    top_k: Annotated[int, Ge(2)] = 8,
    temperature: Positive = 3.0,
    reduction: str = "mean",
) -> Tensor:
    """Bi-directional logits difference loss (Li et al. 2025, Eq. 8).

    The differences ``z_i - z_j`` of all pairs among the ``top_k`` largest teacher logits, divided
    by the temperature, form a distribution over the pairs. The loss is the KL divergence from the
    teacher's to the student's distribution, plus the same for the ``top_k`` largest student logits.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        top_k: number of logits on each side, >= 2; all of them if there are fewer classes.
        temperature: divisor of the logits, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ or there is only one class.

    Example:
        >>> import torch
        >>> bild_loss(torch.zeros(2, 3), torch.eye(3)[:2])
        tensor(0.0350)
    """
    require_same_logits(student_logits, teacher_logits, classes=2)
    student_logits = to_float32(student_logits) / temperature
    teacher_logits = to_float32(teacher_logits) / temperature
    top_k = min(top_k, student_logits.shape[-1])
    values = torch.zeros_like(student_logits[..., 0])
    for leading in (teacher_logits, student_logits):
        # Each side selects the classes once: the paper sums a teacher-led and a student-led term.
        index = leading.detach().topk(top_k, dim=-1).indices
        student_top = student_logits.gather(-1, index)
        teacher_top = teacher_logits.gather(-1, index)
        values = values + _pairwise_kl(student_top, teacher_top)
    return apply_reduction(values, reduction)


def _pairwise_kl(student_top: Tensor, teacher_top: Tensor) -> Tensor:
    """KL divergence between the distributions over pairs, (..., K) logits in their common order."""
    top_k = student_top.shape[-1]
    first, second = torch.triu_indices(top_k, top_k, 1, device=student_top.device)
    impossible = torch.isneginf(student_top) | torch.isneginf(teacher_top)
    excluded = impossible[..., first] | impossible[..., second]
    log_probabilities = []
    for logits in (teacher_top, student_top):
        # -inf minus -inf is NaN; these pairs get no probability below, so the replacement has no
        # effect.
        logits = logits.masked_fill(impossible, 0.0)
        difference = logits[..., first] - logits[..., second]
        log_probabilities.append(difference.masked_fill(excluded, FLOOR).log_softmax(-1))
    return kl_divergence(*log_probabilities)


class BiLD(LogitObjective):
    """Bi-directional logits difference: the ranking of the largest logits, without the long tail.

    Logits are (..., C).
    """

    card = Card(
        "BiLD: Bi-directional Logits Difference Loss for Large Language Model Distillation",
        "https://arxiv.org/abs/2406.13555",
        "COLING",
        2025,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        equation=r"\mathrm{KL}(d^t_{T} \Vert d^s_{T}) + \mathrm{KL}(d^t_{S} \Vert d^s_{S}), \quad "
        r"d_{K} = \mathrm{softmax}_{i < j \in K} \tfrac{z_i - z_j}{\tau}, \quad K \text{ the } k "
        r"\text{ largest of teacher } T \text{ or student } S",
        use="Language models fine-tuned for one task, whose tail is noise: only the order and the "
        "distances of the most probable tokens are matched. Adding a constant to all logits "
        "changes nothing.",
        pitfalls="The number of pairs grows with the square of top_k. Classes outside both top "
        "sets get no gradient, so combine it with cross-entropy on the label, as the paper does. "
        "The values carry no factor temperature².",
    )

    def __init__(
        self,
        top_k: Annotated[int, Ge(2), Doc("number of largest logits of each side")] = 8,
        temperature: Annotated[Positive, Doc("divisor of the logits")] = 3.0,
        standardize: Annotated[
            bool, Doc("standardize the logits of both sides over the classes first")
        ] = False,
    ):
        super().__init__(standardize)
        self.top_k = top_k
        self.temperature = temperature

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        return bild_loss(student_logits, teacher_logits, self.top_k, self.temperature, "none")
