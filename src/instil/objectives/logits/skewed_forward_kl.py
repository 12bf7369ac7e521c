"""Forward KL to a student that has a little of the teacher mixed in, of tokens, in constant memory."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Lt
from torch import Tensor

from instil.core import Batch, Card, Positive
from instil.functional.tokens.divergence import reduce_tokens, token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.terms import Divergence, PerTokenDivergence, skewed_forward_kl
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary

Skew = Annotated[float, Ge(0), Lt(1)]


def skewed_forward_kl_loss(
    student: Signal,
    teacher: Signal,
    skew: float | Tensor = 0.1,
    temperature: float = 1.0,
    scale: bool = True,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """T² KL(teacher || skew teacher + (1 - skew) student) of every token (Ko et al. 2024); ``skew`` is one number, or (...) of each token.

    Logits (..., V) or projections, in any mixture, give (...) for reduction ``none``; ``weight`` (...) is how much each token counts.
    Raises ValueError where tokens or classes differ.
    """
    term = (
        PerTokenDivergence(skewed_forward_kl, skew)
        if isinstance(skew, Tensor)
        else skewed_forward_kl(skew)
    )
    values = token_divergence(student, teacher, term, temperature, weight)
    return reduce_tokens(values * temperature**2 if scale else values, weight, reduction)


class SkewedForwardKL(TokenObjective):
    """forward_kl that stays finite where the student holds impossible what the teacher says; logits (..., V) or projections.

    ``skew``: the teacher's share of what the student is taken to say.
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
        deviations="The authors' code leaves the teacher's entropy in, which changes the value and no gradient.",
        equation=r"T^2 \mathrm{KL}\big(p^t \Vert \lambda p^t + (1 - \lambda) p^s\big)",
        use="Given text, where plain forward_kl is ruled by the tokens that the student finds nearly impossible: the mixture bounds its gradient.",
        pitfalls="The loss shrinks by about (1 - skew)² as the skew grows, so that a skew is a change of the learning rate as well.",
    )

    def __init__(
        self,
        skew: Skew = 0.1,
        temperature: Positive = 1.0,
        scale: bool = True,
        vocabulary: Vocabulary = None,
    ):
        super().__init__(temperature, scale, vocabulary)
        self.skew = skew

    def term(self, batch: Batch) -> Divergence:
        return skewed_forward_kl(self.skew)
