"""Generalised Jensen-Shannon divergence of tokens: both sides against a mixture of them."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, Schedule, check_bounds
from instil.functional.tokens.divergence import reduce_tokens, token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.terms import (
    Divergence,
    forward_kl,
    jsd,
    reverse_kl,
    scaled_divergence,
)
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary

Share = Annotated[float, Ge(0), Le(1)]


def jsd_term(beta: float, continuous: bool) -> Divergence:
    """Jensen-Shannon divergence as an argument of ``token_divergence``.

    Args:
        beta: teacher's share of the mixture, in [0, 1].
        continuous: divide by ``beta * (1 - beta)``, so that 0 and 1 give the forward and the
            reverse KL divergence.

    Returns:
        Function of student and teacher distributions that returns values and gradients.

    Raises:
        ValueError: if ``beta`` is not strictly between 0 and 1 and ``continuous`` is false; the
            divergence would be 0 for any student.
    """
    if not continuous:
        if not 0 < beta < 1:
            limit = "forward_kl" if beta == 0 else "reverse_kl"
            raise ValueError(
                f"beta: the divergence is 0 for any student. Expected a number between 0 and 1, "
                f"got {beta}. Use {limit}, or continuous=True, which has that limit."
            )
        return jsd(beta)
    if beta in (0, 1):
        return reverse_kl if beta else forward_kl
    return scaled_divergence(jsd(beta), 1 / (beta * (1 - beta)))


@check_bounds
def jsd_loss(
    student_logits: Signal,
    teacher_logits: Signal,
    beta: Share = 0.5,
    continuous: bool = False,
    temperature: Positive = 1.0,
    scale: bool = True,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Generalised Jensen-Shannon divergence of teacher p and student q (Agarwal et al. 2024).

    ``beta KL(p || m) + (1 - beta) KL(q || m)`` for each token (section 2). The mixture is
    ``m = beta p + (1 - beta) q``. Memory does not grow with tokens times vocabulary if
    both sides are projections.

    Args:
        student_logits: student logits (..., V), or a projection (hidden states and head).
        teacher_logits: teacher logits (..., V), or a projection.
        beta: teacher's share of the mixture, in (0, 1), or in [0, 1] if ``continuous``.
        continuous: divide by ``beta * (1 - beta)``.
        temperature: softmax temperature, > 0.
        scale: multiply by ``temperature ** 2``.
        weight: weight of each token (...), 0 for tokens that do not count.
        reduction: ``"mean"`` over the tokens that count, or ``"none"``.

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if tokens or classes differ, or ``beta`` is 0 or 1 without ``continuous``.

    Example:
        >>> import torch
        >>> jsd_loss(torch.zeros(2, 3), torch.eye(3)[:2])
        tensor(0.0300)
    """
    term = jsd_term(beta, continuous)
    values = token_divergence(student_logits, teacher_logits, term, temperature, weight)
    return reduce_tokens(values * temperature**2 if scale else values, weight, reduction)


class JSD(TokenObjective):
    """Divergence of both sides from their mixture; finite even where one side has probability 0.

    Logits are (..., V), or projections.
    """

    card = Card(
        "On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes",
        "https://arxiv.org/abs/2306.13649",
        "ICLR",
        2024,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        deviations="TRL and Liger use forward KL for beta 0 and reverse KL for beta 1. That is a "
        "jump: the formula is 0 there, and at a distance of 0.001 it is a thousandth of them. Here "
        "the ends are an error, or, with continuous=True, the limits of the divergence divided by "
        "beta (1 - beta). The parameter of DistiLLM and KDFlow is the student's share, 1 - beta.",
        equation=r"T^2 \big( \beta \mathrm{KL}(p^t \Vert m) + (1 - \beta) \mathrm{KL}(p^s \Vert m) "
        r"\big), \quad m = \beta p^t + (1 - \beta) p^s",
        use="Between language models, above all on text that the student generates. A small beta "
        "behaves like forward_kl, a large one like reverse_kl.",
        pitfalls="It is bounded (by log 2 at beta 0.5) and small near the ends. Without "
        "continuous=True a change of beta therefore also changes the effective learning rate.",
    )

    def __init__(
        self,
        beta: Annotated[
            Share, Doc("teacher's share of the mixture; 0 and 1 need continuous")
        ] = 0.5,
        continuous: Annotated[
            bool, Doc("divide by beta (1 - beta): beta 0 is then forward_kl and beta 1 reverse_kl")
        ] = False,
        temperature: Annotated[Positive, Doc("softmax temperature of both sides")] = 1.0,
        scale: Annotated[bool, Doc("multiply the loss by temperature²")] = True,
        vocabulary: Annotated[
            Vocabulary,
            Doc(
                "number of classes without padding; later ones have probability 0 on both sides. "
                "None: all"
            ),
        ] = None,
    ):
        super().__init__(temperature, scale, vocabulary)
        # Fails in the constructor for a wrong number; the values of a schedule are known in
        # training only.
        if not isinstance(beta, Schedule):
            jsd_term(beta, continuous)
        self.beta = beta
        self.continuous = continuous

    def term(self, batch: Batch) -> Divergence:
        return jsd_term(self.beta, self.continuous)
