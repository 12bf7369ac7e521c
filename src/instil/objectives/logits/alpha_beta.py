"""A family of divergences with forward and reverse KL at its ends, of tokens, in constant memory."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Card, Positive
from instil.objectives.heads import Signal
from instil.objectives.token_divergence import reduced_tokens, token_divergence
from instil.objectives.token_objective import TokenObjective, Vocabulary
from instil.objectives.token_terms import Term, alpha_beta


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
    """T² times the alpha-beta divergence of teacher and student, of every token (Wang et al. 2025).

    It is -sum(p^alpha q^beta - a p^(alpha + beta) - b q^(alpha + beta)) / (alpha beta), a and b being alpha and beta over their sum.
    Logits (..., V) or projections, in any mixture, give (...) for reduction ``none``; ``weight`` (...) is how much each token counts.
    Raises ValueError where tokens or classes differ, and for an alpha or beta that is not above 0.
    """
    if min(alpha, beta) <= 0:
        raise ValueError(
            f"alpha {alpha} and beta {beta} must be above 0; the limits are forward_kl (1, 0) and reverse_kl (0, 1)"
        )
    values = token_divergence(student, teacher, alpha_beta(alpha, beta), temperature, weight)
    return reduced_tokens(values * temperature**2 if scale else values, weight, reduction)


class AlphaBeta(TokenObjective):
    """What the student says too little of and what it says too much of, weighed apart by two exponents; logits (..., V) or projections.

    ``alpha``: the exponent of the teacher's probability.
    ``beta``: the exponent of the student's.
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
        deviations="Alpha and beta are above 0; the paper's limits at 0 are methods of their own: forward_kl at (1, 0), reverse_kl at (0, 1).",
        equation=r"-\frac{T^2}{\alpha \beta} \sum_v \Big( (p^t_v)^\alpha (p^s_v)^\beta - \tfrac{\alpha}{\alpha + \beta} (p^t_v)^{\alpha + \beta} "
        r"- \tfrac{\beta}{\alpha + \beta} (p^s_v)^{\alpha + \beta} \Big)",
        use="Where forward_kl spreads the student out and reverse_kl narrows it down too much: alpha small and beta large lie between them. "
        "alpha = beta = 0.5 is four times the squared Hellinger distance.",
        pitfalls="Two options to tune, and each pair has a scale of its own. Near 0 it is a small difference of large numbers: take the KL.",
    )

    def __init__(
        self,
        alpha: Positive = 0.2,
        beta: Positive = 0.7,
        temperature: Positive = 1.0,
        scale: bool = True,
        vocabulary: Vocabulary = None,
    ):
        super().__init__(temperature, scale, vocabulary)
        self.alpha, self.beta = alpha, beta

    def term(self, batch: Batch) -> Term:
        return alpha_beta(self.alpha, self.beta)
