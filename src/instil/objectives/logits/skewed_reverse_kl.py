"""Reverse KL to a teacher that has a little of the student mixed in, of tokens, in constant memory."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Lt
from torch import Tensor

from instil.core import Batch, Card, Positive
from instil.functional.tokens.divergence import reduce_tokens, token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.terms import Divergence, PerTokenDivergence, skewed_reverse_kl
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary

Skew = Annotated[float, Ge(0), Lt(1)]


def skewed_reverse_kl_loss(
    student: Signal,
    teacher: Signal,
    skew: float | Tensor = 0.1,
    through_mixture: bool = True,
    temperature: float = 1.0,
    scale: bool = True,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """T² KL(student || (1 - skew) teacher + skew student) of every token (Ko et al. 2024); ``skew``: one number, or (...) of each token.

    ``through_mixture``: whether the student inside the mixture gets a gradient. Logits (..., V) or projections, in any mixture, give (...) for
    reduction ``none``; ``weight`` (...) is how much each token counts. Raises ValueError where tokens or classes differ.
    """
    if isinstance(skew, Tensor):
        term: Divergence | PerTokenDivergence = PerTokenDivergence(
            lambda values: skewed_reverse_kl(values, through_mixture), skew
        )
    else:
        term = skewed_reverse_kl(skew, through_mixture)
    values = token_divergence(student, teacher, term, temperature, weight)
    return reduce_tokens(values * temperature**2 if scale else values, weight, reduction)


class SkewedReverseKL(TokenObjective):
    """reverse_kl that stays finite where the teacher holds impossible what the student says; logits (..., V) or projections.

    ``skew``: the student's share of what the teacher is taken to say.
    ``through_mixture``: the student inside the mixture gets a gradient too.
    ``temperature``: divides the logits.
    ``scale``: the factor T².
    ``vocabulary``: classes from this number on are padding, of no probability on either side.
    """

    card = Card(
        "DistiLLM: Towards Streamlined Distillation for Large Language Models",
        "https://arxiv.org/abs/2402.03898",
        "ICML",
        2024,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        deviations="The paper and its first code let the gradient pass through the mixture; DistiLLM-2's code does not: through_mixture=False.",
        equation=r"T^2 \mathrm{KL}\big(p^s \Vert (1 - \lambda) p^t + \lambda p^s\big)",
        use="On the student's own text, as DistiLLM does: mode seeking like reverse_kl, and bounded by log(1 / skew).",
        pitfalls="Where the student says what the teacher never would, the loss stands at its bound and hardly pulls: train the student first.",
    )

    def __init__(
        self,
        skew: Skew = 0.1,
        through_mixture: bool = True,
        temperature: Positive = 1.0,
        scale: bool = True,
        vocabulary: Vocabulary = None,
    ):
        super().__init__(temperature, scale, vocabulary)
        self.skew, self.through_mixture = skew, through_mixture

    def term(self, batch: Batch) -> Divergence:
        return skewed_reverse_kl(self.skew, self.through_mixture)
