"""A family of divergences with forward and reverse KL at its ends, of tokens, in constant memory."""

from __future__ import annotations

import math

from torch import Tensor

from instil.core import Batch, Card, Positive
from instil.functional.tokens.divergence import reduced_tokens, token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.terms import Term, alpha_beta
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary


def alpha_beta_loss(
    student: Signal,
    teacher: Signal,
    alpha: float = 0.2,
    beta: float = 0.7,
    temperature: float = 1.0,
    scale: bool = True,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Alpha-beta divergence of teacher and student (Wang et al. 2025, Definition 4.1).

    For the teacher's probabilities ``p`` and the student's ``q`` the divergence is
    ``-sum(p^alpha q^beta - a p^(alpha + beta) - b q^(alpha + beta)) / (alpha beta)`` with
    ``a = alpha / (alpha + beta)`` and ``b = beta / (alpha + beta)``. Where ``alpha``, ``beta`` or
    their sum is 0 it is the limit of this formula: (1, 0) is the forward and (0, 1) the reverse
    KL divergence, (0, 0) half the squared difference of the log-probabilities.

    Args:
        student: student logits (..., V), or a projection (hidden states and head).
        teacher: teacher logits (..., V), or a projection.
        alpha: exponent of the teacher's probability, any finite number.
        beta: exponent of the student's probability, any finite number.
        temperature: softmax temperature, > 0.
        scale: multiply by ``temperature ** 2``.
        weight: weight of each token (...), 0 for tokens that do not count.
        reduction: ``"mean"`` over the tokens that count, or ``"none"``.

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if tokens or classes differ, or an exponent is not finite.

    Example:
        >>> import torch
        >>> student, teacher = torch.zeros(2, 3), torch.eye(3)[:2]
        >>> alpha_beta_loss(student, teacher, alpha=1.0, beta=0.0)
        tensor(0.1233)
    """
    if not (math.isfinite(alpha) and math.isfinite(beta)):
        raise ValueError(f"alpha, beta: expected finite numbers, got {alpha} and {beta}.")
    values = token_divergence(student, teacher, alpha_beta(alpha, beta), temperature, weight)
    return reduced_tokens(values * temperature**2 if scale else values, weight, reduction)


class AlphaBeta(TokenObjective):
    """Alpha-beta divergence: two exponents weigh classes that the student under- and overestimates.

    ``alpha``: exponent of the teacher's probability; zero and negative numbers are allowed.
    ``beta``: exponent of the student's probability; zero and negative numbers are allowed.
    ``temperature``: divides the logits.
    ``scale``: the factor T².
    ``vocabulary``: classes from this number on are padding, of no probability on either side.
    """

    card = Card(
        "ABKD: Pursuing a Proper Allocation of the Probability Mass in Knowledge Distillation via α-β-Divergence",
        "https://arxiv.org/abs/2505.04560",
        "ICML",
        2025,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        deviations="Where alpha, beta or their sum is 0 the divergence is the limit of the general formula. The authors' code divides these "
        "limits by the exponent once instead of twice, so it gives alpha (or beta) times this value; at exponent 1 both agree.",
        equation=r"-\frac{T^2}{\alpha \beta} \sum_v \Big( (p^t_v)^\alpha (p^s_v)^\beta - \tfrac{\alpha}{\alpha + \beta} (p^t_v)^{\alpha + \beta} "
        r"- \tfrac{\beta}{\alpha + \beta} (p^s_v)^{\alpha + \beta} \Big)",
        use="Where forward_kl spreads the student out and reverse_kl narrows it down too much: alpha small and beta large lie between them. "
        "alpha = beta = 0.5 is four times the squared Hellinger distance.",
        pitfalls="Two options to tune, and each pair has a scale of its own. Next to 0 the general formula is a small difference of large numbers: "
        "set the exponent to exactly 0. With a negative exponent a class of probability 0 on one side makes the loss infinite.",
    )

    def __init__(
        self,
        alpha: float = 0.2,
        beta: float = 0.7,
        temperature: Positive = 1.0,
        scale: bool = True,
        vocabulary: Vocabulary = None,
    ):
        super().__init__(temperature, scale, vocabulary)
        self.alpha, self.beta = alpha, beta

    def term(self, batch: Batch) -> Term:
        return alpha_beta(self.alpha, self.beta)
