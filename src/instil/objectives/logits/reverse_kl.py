"""Reverse KL divergence of token distributions, in constant memory."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Card, Positive, check_bounds
from instil.functional.tokens.divergence import reduce_tokens, token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.terms import Divergence, reverse_kl
from instil.objectives.bases.token_objective import TokenObjective


@check_bounds
def reverse_kl_loss(
    student_logits: Signal,
    teacher_logits: Signal,
    temperature: Positive = 1.0,
    scale: bool = True,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Reverse KL divergence, KL(student || teacher) (Gu et al. 2024, Eq. 1 for one token).

    Args:
        student_logits: logits (..., V), or a projection (hidden states and head).
        teacher_logits: logits (..., V), or a projection.
        temperature: softmax temperature, > 0.
        scale: multiply by ``temperature ** 2``.
        weight: weight of each token (...), 0 for tokens that do not count.
        reduction: ``"mean"`` over the tokens that count, or ``"none"``.

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the tokens or the classes differ.

    Example:
        >>> import torch
        >>> reverse_kl_loss(torch.zeros(2, 3), torch.eye(3)[:2])
        tensor(0.1195)
    """
    values = token_divergence(student_logits, teacher_logits, reverse_kl, temperature, weight)
    return reduce_tokens(values * temperature**2 if scale else values, weight, reduction)


class ReverseKL(TokenObjective):
    """Reverse KL divergence, which is mode seeking; reads logits (..., V) or projections.

    The student concentrates on classes that the teacher considers likely, and may omit others.
    """

    card = Card(
        "MiniLLM: Knowledge Distillation of Large Language Models",
        "https://arxiv.org/abs/2306.08543",
        "ICLR",
        2024,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        deviations="The paper minimises the divergence of whole sequences by a policy gradient. "
        "This loss is its single-step part, exact over the vocabulary. It is the divergence at "
        "each position of the given text, without the effect of a token on later ones.",
        equation=r"T^2 \sum_v p^s_v \log \frac{p^s_v}{p^t_v}",
        use="For a student that is too small to match the whole teacher distribution, "
        "especially on text sampled by the student. There it is the objective of on-policy "
        "distillation.",
        pitfalls="The loss is mode seeking: on given text alone the student may drop less "
        "frequent outputs of the teacher. Its gradient nearly vanishes for classes to which the "
        "student gives no probability, so start from a trained student. The loss is infinite if "
        "the student gives probability to a class whose teacher logit is minus infinity.",
    )

    def term(self, batch: Batch) -> Divergence:
        return reverse_kl
