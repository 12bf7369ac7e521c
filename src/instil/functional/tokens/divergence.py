"""Divergences of whole token distributions in constant memory."""

from __future__ import annotations

from torch import Tensor

from instil.core import mean
from instil.functional.tokens.chunks import chunked_loss
from instil.functional.tokens.heads import LogitSource, Rows, Signal
from instil.functional.tokens.signals import as_constant, at_temperature, require_same_tokens
from instil.functional.tokens.terms import Divergence, PerTokenDivergence, TokenDistribution


class DenseTarget:
    """Target that holds the teacher logits of all classes."""

    def __init__(
        self, source: LogitSource, divergence: Divergence | PerTokenDivergence, temperature: float
    ):
        self.source = source
        self.divergence = divergence
        self.temperature = temperature

    def loss_and_grad(
        self, student: TokenDistribution, rows: Rows, teacher_logits: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        divergence = self.divergence
        if isinstance(divergence, PerTokenDivergence):
            divergence = divergence.of(rows)
        return divergence(student, at_temperature(self.source, teacher_logits, self.temperature))


def token_divergence(
    student: Signal,
    teacher: Signal,
    term: Divergence | PerTokenDivergence,
    temperature: float = 1.0,
    weight: Tensor | None = None,
    vocabulary: int | None = None,
) -> Tensor:
    """Divergence of student and teacher distributions, one value per token.

    Args:
        student: logits (..., V), or a projection with hidden states (..., H).
        teacher: logits or a projection of the same tokens. It receives no gradient.
        term: divergence of two distributions.
        temperature: softmax temperature of both sides, > 0.
        weight: (...), weight of each token in the mean or sum taken later; see ``chunked_loss``.
        vocabulary: number of classes; the others are padding with probability 0 on both sides.

    Returns:
        (...), without the factor ``temperature ** 2``.

    Raises:
        ValueError: if tokens or classes differ.
    """
    require_same_tokens(student, teacher, vocabulary)
    target = DenseTarget(as_constant(teacher, vocabulary), term, temperature)
    return chunked_loss(student, target, temperature, weight, vocabulary)


def reduce_tokens(values: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    """Reduce one value per token.

    Args:
        values: (...).
        weight: (...), weight of each token in the mean. None: 1.
        reduction: ``"mean"`` or ``"none"``.

    Raises:
        ValueError: for another reduction.
    """
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction is 'mean' or 'none', not '{reduction}'")
    if reduction == "none":
        return values
    return values.mean() if weight is None else mean(values, weight)
