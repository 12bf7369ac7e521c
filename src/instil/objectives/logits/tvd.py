"""The total variation between what student and teacher say, of tokens, in constant memory."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Card, Positive
from instil.functional.tokens.divergence import reduce_tokens, token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.terms import Divergence, total_variation
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary


def tvd_loss(
    student: Signal,
    teacher: Signal,
    temperature: float = 1.0,
    scale: bool = False,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Half the sum of abs(teacher - student) of every token's probabilities (Wen et al. 2023), times T² with ``scale``.

    Logits (..., V) or projections, in any mixture, give (...) for reduction ``none``; ``weight`` (...) is how much each token counts.
    Raises ValueError where tokens or classes differ.
    """
    values = token_divergence(student, teacher, total_variation, temperature, weight)
    return reduce_tokens(values * temperature**2 if scale else values, weight, reduction)


class TVD(TokenObjective):
    """How much probability would have to be moved: symmetric, between 0 and 1, and no logarithm in it; logits (..., V) or projections.

    ``temperature``: divides the logits.
    ``scale``: the factor T².
    ``vocabulary``: classes from this number on are padding, of no probability on either side.
    """

    card = Card(
        "f-Divergence Minimization for Sequence-Level Knowledge Distillation",
        "https://arxiv.org/abs/2307.15190",
        "ACL",
        2023,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        deviations="No factor T², unlike DistillKit: the gradient of this divergence does not fall by T², so that the factor would keep nothing.",
        equation=r"\tfrac{1}{2} \sum_v |p^t_v - p^s_v|",
        use="A bounded divergence that treats both sides alike, where outliers of a noisy teacher rule the KL divergences.",
        pitfalls="Its gradient keeps its size up to the match and nearly vanishes for classes that the student holds improbable: a student that "
        "knows nothing yet learns slowly. Add cross_entropy, or begin with forward_kl.",
    )

    def __init__(
        self, temperature: Positive = 1.0, scale: bool = False, vocabulary: Vocabulary = None
    ):
        super().__init__(temperature, scale, vocabulary)

    def term(self, batch: Batch) -> Divergence:
        return total_variation
