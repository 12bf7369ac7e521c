"""Both directions of the KL divergence at once, of tokens, in constant memory."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor

from instil.core import Batch, Card, Positive
from instil.functional.tokens.divergence import reduce_tokens, token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.terms import Divergence, symmetric_kl
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary

Share = Annotated[float, Ge(0), Le(1)]


def symmetric_kl_loss(
    student: Signal,
    teacher: Signal,
    forward_share: float = 0.5,
    temperature: float = 1.0,
    scale: bool = True,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """T² (f KL(teacher || student) + (1 - f) KL(student || teacher)) of every token (Kullback & Leibler 1951, halved for f = 0.5).

    Logits (..., V) or projections, in any mixture, give (...) for reduction ``none``; ``weight`` (...) is how much each token counts.
    Raises ValueError where tokens or classes differ.
    """
    values = token_divergence(student, teacher, symmetric_kl(forward_share), temperature, weight)
    return reduce_tokens(values * temperature**2 if scale else values, weight, reduction)


class SymmetricKL(TokenObjective):
    """A weighted mean of forward_kl and reverse_kl in one pass; logits (..., V) or projections.

    ``forward_share``: the share of the forward KL.
    ``temperature``: divides the logits.
    ``scale``: the factor T².
    ``vocabulary``: classes from this number on are padding, of no probability on either side.
    """

    card = Card(
        "On Information and Sufficiency",
        "https://doi.org/10.1214/aoms/1177729694",
        "Ann. Math. Stat.",
        1951,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        deviations="torchtune and DistiLLM add a cross-entropy, which has the teacher's entropy left in, to a true reverse KL: the same gradient. "
        "torchtune's ratio is this share, DistiLLM's lam is what is left of it.",
        equation=r"T^2 \big( w \mathrm{KL}(p^t \Vert p^s) + (1 - w) \mathrm{KL}(p^s \Vert p^t) \big)",
        use="Where neither covering all modes nor seeking one is wanted alone; akl sets the share by itself, token by token.",
        pitfalls="Each side's impossible classes weigh heavily, unlike in jsd, which is bounded.",
    )

    def __init__(
        self,
        forward_share: Share = 0.5,
        temperature: Positive = 1.0,
        scale: bool = True,
        vocabulary: Vocabulary = None,
    ):
        super().__init__(temperature, scale, vocabulary)
        self.forward_share = forward_share

    def term(self, batch: Batch) -> Divergence:
        return symmetric_kl(self.forward_share)
