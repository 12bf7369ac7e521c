"""Alpha-beta divergences of tokens, a family with forward and reverse KL at its ends."""

from __future__ import annotations

import math
from typing import Annotated

from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds
from instil.functional.tokens.alpha_beta import alpha_beta
from instil.functional.tokens.divergence import reduce_tokens, token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.terms import Divergence
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary


@check_bounds
def alpha_beta_loss(
    student_logits: Signal,
    teacher_logits: Signal,
    alpha: float = 0.2,
    beta: float = 0.7,
    temperature: Positive = 1.0,
    scale: bool = True,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Alpha-beta divergence of teacher and student (Wang et al. 2025, Definition 4.1).

    ``-sum(p^alpha q^beta - a p^(alpha + beta) - b q^(alpha + beta)) / (alpha beta)``, with the
    teacher's probabilities ``p`` and the student's ``q``. The factors are
    ``a = alpha / (alpha + beta)`` and ``b = beta / (alpha + beta)``. Where ``alpha``, ``beta`` or
    their sum is 0 it is the limit of this formula: (1, 0) is the forward and (0, 1) the reverse
    KL divergence, (0, 0) half the squared difference of the log-probabilities.

    Args:
        student_logits: student logits (..., V), or a projection (hidden states and head).
        teacher_logits: teacher logits (..., V), or a projection.
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
        >>> student_logits, teacher_logits = torch.zeros(2, 3), torch.eye(3)[:2]
        >>> alpha_beta_loss(student_logits, teacher_logits, alpha=1.0, beta=0.0)
        tensor(0.1233)
    """
    if not (math.isfinite(alpha) and math.isfinite(beta)):
        expected = f"Expected finite numbers, got {alpha} and {beta}."
        raise ValueError(f"alpha, beta: an exponent is not finite. {expected}")
    term = alpha_beta(alpha, beta)
    values = token_divergence(student_logits, teacher_logits, term, temperature, weight)
    return reduce_tokens(values * temperature**2 if scale else values, weight, reduction)


class AlphaBeta(TokenObjective):
    """Alpha-beta divergence: two exponents weigh classes that the student under- and overestimates.

    Logits are (..., V), or projections.
    """

    card = Card(
        "ABKD: Pursuing a Proper Allocation of the Probability Mass in Knowledge Distillation via "
        "α-β-Divergence",
        "https://arxiv.org/abs/2505.04560",
        "ICML",
        2025,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        deviations="Where alpha, beta or their sum is 0 the divergence is the limit of the general "
        "formula. The authors' code divides these limits by the exponent once instead of twice, so "
        "it gives alpha (or beta) times this value. At exponent 1 both agree.",
        equation=r"-\frac{T^2}{\alpha \beta} \sum_v \Big( (p^t_v)^\alpha (p^s_v)^\beta - "
        r"\tfrac{\alpha}{\alpha + \beta} (p^t_v)^{\alpha + \beta} - \tfrac{\beta}{\alpha + \beta} "
        r"(p^s_v)^{\alpha + \beta} \Big)",
        use="When forward_kl spreads the student too widely and reverse_kl narrows it too much. A "
        "small alpha with a large beta lies between them. alpha = beta = 0.5 is four times the "
        "squared Hellinger distance.",
        pitfalls="There are two options to tune, and each pair has its own scale. Near 0 the "
        "general formula is a small difference of large numbers, so set the exponent to exactly 0. "
        "With a negative exponent, a class of probability 0 on one side makes the loss infinite.",
    )

    def __init__(
        self,
        alpha: Annotated[
            float, Doc("exponent of the teacher's probability; may be zero or negative")
        ] = 0.2,
        beta: Annotated[
            float, Doc("exponent of the student's probability; may be zero or negative")
        ] = 0.7,
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
        self.alpha = alpha
        self.beta = beta

    def term(self, batch: Batch) -> Divergence:
        return alpha_beta(self.alpha, self.beta)
