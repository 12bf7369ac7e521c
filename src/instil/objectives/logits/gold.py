"""Divergence of the tokens that two vocabularies share, and sorted distance of the others."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs, Positive, check_bounds, to_float32
from instil.functional.autograd import with_precomputed_grad
from instil.functional.feature_maps import require_dims
from instil.functional.logits import apply_reduction
from instil.functional.tokens.spans import require_same_positions, sorted_distance
from instil.objectives.bases.span_objective import SpanObjective

PROBABILITY_FLOOR = 1e-8
"""Lower bound of a probability inside a logarithm."""


@check_bounds
def gold_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    same_tokens: Tensor | None = None,
    beta: Annotated[float, Ge(0), Le(1)] = 0.5,
    weights: tuple[float, float] | None = None,
    temperature: Positive = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """General on-policy logit distillation loss (TRL, 2025).

    ``w`` times the Jensen-Shannon divergence of the shared tokens plus ``1 - w`` times the ULD
    distance of the others. ``w`` is the number of shared tokens divided by the size of the
    teacher's vocabulary.

    Args:
        student_logits: (..., V).
        teacher_logits: (..., V'), of the same positions.
        same_tokens: ids (P, 2) of the shared tokens, teacher first. None: all tokens are shared.
        beta: teacher's share of the mixture in the divergence, in [0, 1].
        weights: weights that replace (w, 1 - w).
        temperature: softmax temperature, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per position).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the positions differ, or the vocabularies differ in size and ``same_tokens``
            is None.

    Example:
        >>> import torch
        >>> same_tokens = torch.tensor([[0, 0], [1, 2]])
        >>> gold_loss(torch.zeros(2, 3), torch.eye(4)[:2], same_tokens)
        tensor(0.1761)
    """
    require_same_positions(student_logits, teacher_logits)
    log_student = (to_float32(student_logits) / temperature).log_softmax(-1)
    log_teacher = (to_float32(teacher_logits) / temperature).log_softmax(-1)
    values = hybrid_divergence(log_student, log_teacher, same_tokens, beta, weights)
    return apply_reduction(values, reduction)


def hybrid_divergence(
    log_student: Tensor,
    log_teacher: Tensor,
    same_tokens: Tensor | None,
    beta: float,
    weights: tuple[float, float] | None = None,
) -> Tensor:
    """Loss of ``gold_loss`` for log-probabilities.

    Args:
        log_student: log-probabilities (..., V).
        log_teacher: log-probabilities (..., V').
        same_tokens: ids (P, 2) of the shared tokens, teacher first. None: all tokens are shared.
        beta: teacher's share of the mixture.
        weights: weights of shared and other tokens. None: by the share of shared tokens.

    Returns:
        One value per position (...).

    Raises:
        ValueError: if ``same_tokens`` is None and the vocabularies differ in size.
    """
    if same_tokens is None:
        if log_student.shape[-1] != log_teacher.shape[-1]:
            sizes = f"{log_student.shape[-1]} (student) and {log_teacher.shape[-1]} (teacher)"
            raise ValueError(
                "same_tokens: the shared tokens are missing. Expected vocabularies of one size, "
                f"got {sizes}. Set teacher.tokenizer, which adds 'same_tokens' to the batch."
            )
        return partial_jsd(log_student, log_teacher, beta)
    require_dims(same_tokens, 2, "same_tokens")
    teacher_ids = same_tokens[:, 0]
    student_ids = same_tokens[:, 1]
    share = len(same_tokens) / log_teacher.shape[-1]
    shared_weight, other_weight = weights or (share, 1 - share)
    shared = partial_jsd(log_student[..., student_ids], log_teacher[..., teacher_ids], beta)
    student_rest = _without(log_student, student_ids).exp()
    teacher_rest = _without(log_teacher, teacher_ids).exp()
    return shared_weight * shared + other_weight * sorted_distance(student_rest, teacher_rest)


def partial_jsd(log_student: Tensor, log_teacher: Tensor, beta: float) -> Tensor:
    """Jensen-Shannon divergence of some classes, whose probabilities need not sum to 1.

    ``beta sum(p log(p / m)) + (1 - beta) sum(q log(q / m))`` for teacher p and student q. The
    mixture is ``m = beta p + (1 - beta) q``. With beta 0 it is ``sum(p log(p / q))``, with beta 1
    ``sum(q log(q / p))``. No gradient flows to the teacher.

    Args:
        log_student: log-probabilities (..., P).
        log_teacher: log-probabilities (..., P).
        beta: teacher's share of the mixture, in [0, 1].

    Returns:
        One value per position (...).
    """
    log_floor = math.log(PROBABILITY_FLOOR)
    log_p = log_teacher.detach().clamp_min(log_floor)
    p = log_p.exp()
    # At beta 1 the loss is the reverse divergence, not the zero of the general formula.
    share = 1 if beta == 1 else 1 - beta

    def divergence(log_student: Tensor) -> tuple[Tensor, Tensor]:
        log_q = log_student.clamp_min(log_floor)
        q = log_q.exp()
        # Classes at the floor have no gradient.
        above_floor = (log_q - log_floor).sign()
        if beta == 0:
            return torch.linalg.vecdot(p, log_p - log_q), -p * above_floor
        log_mixture = log_p if beta == 1 else torch.lerp(q, p, beta).log()
        surplus = q * (log_q - log_mixture)
        value = beta * torch.linalg.vecdot(p, log_p - log_mixture) + share * surplus.sum(-1)
        return value, share * (surplus + q if beta == 1 else surplus) * above_floor

    return with_precomputed_grad(divergence, log_student)


def _without(values: Tensor, token_ids: Tensor) -> Tensor:
    """Remove the columns of some tokens."""
    others = torch.ones(values.shape[-1], dtype=torch.bool, device=values.device)
    return values[..., others.index_fill(0, token_ids, False)]


class GOLD(SpanObjective):
    """Jensen-Shannon divergence of tokens with the same text, and the ULD distance of the others.

    Logits are (..., V) and (..., V'). With a teacher of another tokenizer (``teacher.tokenizer``)
    an item is a span of bytes whose end is a token boundary of both tokenizers.
    """

    card = Card(
        "Unlocking On-Policy Distillation for Any Model Family (General On-Policy Logit "
        "Distillation)",
        "https://huggingface.co/spaces/HuggingFaceH4/on-policy-distillation",
        "Hugging Face",
        2025,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        tags=("aligned_tokens",),
        deviations="TRL's default merge multiplies a span's first distribution, one position late, "
        "by the probabilities of the later tokens. Here the last distribution is multiplied by "
        "those of the earlier tokens (its bayesian merge). The published method trains on the "
        "student's own text, which is a choice of the scheme.",
        equation=r"w\, \mathrm{JSD}_\beta\!\left(p^t_{\cap}, p^s_{\cap}\right) + (1-w) \sum_i "
        r"\left| p^t_{(i)} - p^s_{(i)} \right|_{\setminus \cap}, \quad w = \frac{|\cap|}{V^t}",
        use="A teacher with another tokenizer that shares many tokens with the student's, as "
        "byte-level tokenizers of the same languages do.",
        pitfalls="With few shared tokens it is almost uld, which ignores the identity of tokens. "
        "The probabilities of the shared tokens are not normalised, so a teacher that is confident "
        "of another token gives the student only a weak signal.",
    )

    def __init__(
        self,
        beta: Annotated[
            float, Ge(0), Le(1), Doc("teacher's share of the mixture in the divergence")
        ] = 0.5,
        temperature: Annotated[Positive, Doc("softmax temperature of both sides")] = 1.0,
    ):
        super().__init__()
        self.beta = beta
        self.temperature = temperature

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        log_student, log_teacher = self.distributions(
            student["logits"], teacher["logits"], batch, self.temperature
        )
        if "same_tokens" not in batch:
            return hybrid_divergence(log_student, log_teacher, None, self.beta)
        # Without spans there is no row to read the table of tokens from.
        if not len(log_student):
            return log_student.sum(-1)
        return hybrid_divergence(log_student, log_teacher, batch["same_tokens"][0], self.beta)
