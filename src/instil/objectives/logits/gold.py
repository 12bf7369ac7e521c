"""Compare tokens that both vocabularies have by a divergence, and all others by their sorted probabilities."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from instil.core import Batch, Card, Outputs, Positive, full
from instil.functional.autograd import with_slope
from instil.functional.logits import reduced
from instil.functional.tokens.spans import require_same_positions, sorted_distance
from instil.objectives.bases.span_objective import SpanObjective

PROBABILITY_FLOOR = 1e-8
"""A probability below this one counts as this one inside the logarithm."""


def gold_loss(
    student: Tensor,
    teacher: Tensor,
    same: Tensor | None = None,
    beta: float = 0.5,
    weights: tuple[float, float] | None = None,
    temperature: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """w JSD_beta of the tokens in ``same`` (P, 2), numbers (teacher, student), plus (1 - w) times uld of the others; w = P / V' (TRL, 2025).

    Logits (..., V) and (..., V') of the same positions give (...) for reduction ``none``. Without ``same`` all tokens are the same. ``weights`` take
    the place of (w, 1 - w). Raises ValueError for other positions, and without ``same`` for vocabularies of other sizes.
    """
    require_same_positions(student, teacher)
    mine, theirs = ((full(logits) / temperature).log_softmax(-1) for logits in (student, teacher))
    return reduced(hybrid_divergence(mine, theirs, same, beta, weights), reduction)


def hybrid_divergence(
    student: Tensor,
    teacher: Tensor,
    same: Tensor | None,
    beta: float,
    weights: tuple[float, float] | None = None,
) -> Tensor:
    """The loss (...) of log-probabilities (..., V) and (..., V')."""
    if same is None:
        if student.shape[-1] != teacher.shape[-1]:
            sizes = f"the student has {student.shape[-1]} tokens, the teacher {teacher.shape[-1]}"
            raise ValueError(
                f"{sizes}, and nothing says which are the same; the batch needs 'same_tokens', which teacher.tokenizer brings"
            )
        return partial_jsd(student, teacher, beta)
    share = len(same) / teacher.shape[-1]
    of_same, of_others = weights or (share, 1 - share)
    matched = partial_jsd(student[..., same[:, 1]], teacher[..., same[:, 0]], beta)
    rest = [_without(side, same[:, column]).exp() for side, column in ((student, 1), (teacher, 0))]
    return of_same * matched + of_others * sorted_distance(rest[0], rest[1])


def partial_jsd(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """beta sum p log p/m + (1 - beta) sum q log q/m, m = beta p + (1 - beta) q, of some log-probabilities that need not sum to 1.

    With beta 0 it is sum p log p/q, with beta 1 sum q log q/p. No gradient reaches the teacher.
    """
    least = math.log(PROBABILITY_FLOOR)
    theirs = teacher.detach().clamp_min(least)
    p, share = theirs.exp(), 1 if beta == 1 else 1 - beta

    def divergence(student: Tensor) -> tuple[Tensor, Tensor]:
        mine = student.clamp_min(least)
        q, learns = mine.exp(), (mine - least).sign()
        if beta == 0:
            return torch.linalg.vecdot(p, theirs - mine), -p * learns
        middle = theirs if beta == 1 else torch.lerp(q, p, beta).log()
        surplus = q * (mine - middle)
        value = beta * torch.linalg.vecdot(p, theirs - middle) + share * surplus.sum(-1)
        return value, share * (surplus + q if beta == 1 else surplus) * learns

    return with_slope(divergence, student)


def _without(values: Tensor, tokens: Tensor) -> Tensor:
    others = torch.ones(values.shape[-1], dtype=torch.bool, device=values.device).index_fill(
        0, tokens, False
    )
    return values[..., others]


class GOLD(SpanObjective):
    """Tokens that are the same text in both vocabularies are compared one by one, the others as uld has it; logits (..., V) and (..., V').

    With a teacher of another tokenizer (``teacher.tokenizer``) an item is a span of bytes that both tokenizers end. ``beta``: the teacher's share
    of the mixture in the divergence. ``temperature``: divides the logits.
    """

    card = Card(
        "Unlocking On-Policy Distillation for Any Model Family (General On-Policy Logit Distillation)",
        "https://huggingface.co/spaces/HuggingFaceH4/on-policy-distillation",
        "Hugging Face",
        2025,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        deviations="TRL's default merge takes a span's first distribution, one position late, times the later tokens' probabilities; here it is "
        "always the last one times those of the earlier tokens (its bayesian merge). The published method learns on the student's own text: a matter "
        "of the scheme.",
        equation=r"w\, \mathrm{JSD}_\beta\!\left(p^t_{\cap}, p^s_{\cap}\right) + (1-w) \sum_i \left| p^t_{(i)} - p^s_{(i)} \right|_{\setminus \cap}, "
        r"\quad w = \frac{|\cap|}{V^t}",
        use="A teacher with another tokenizer that shares many tokens with the student's, as byte-level ones of the same languages do.",
        pitfalls="Few shared tokens make it uld, which does not know which token is which. Probabilities of the shared tokens are not scaled to sum "
        "to 1, so a teacher that is sure of another token asks the student for little.",
    )

    def __init__(self, beta: Annotated[float, Ge(0), Le(1)] = 0.5, temperature: Positive = 1.0):
        super().__init__()
        self.beta, self.temperature = beta, temperature

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine, theirs = self.distributions(
            student["logits"], teacher["logits"], batch, self.temperature
        )
        if "same_tokens" not in batch:
            return hybrid_divergence(mine, theirs, None, self.beta)
        if not len(mine):
            return mine.sum(-1)
        return hybrid_divergence(mine, theirs, batch["same_tokens"][0], self.beta)
