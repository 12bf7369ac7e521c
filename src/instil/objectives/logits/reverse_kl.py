"""Say only what the teacher would say: the KL divergence to it, of tokens, in constant memory."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Card
from instil.functional.tokens.divergence import reduce_tokens, token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.terms import Divergence, reverse_kl
from instil.objectives.bases.token_objective import TokenObjective


def reverse_kl_loss(
    student: Signal,
    teacher: Signal,
    temperature: float = 1.0,
    scale: bool = True,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """T² KL(student || teacher) of every token (Gu et al. 2024, Eq. 1 for one token).

    Logits (..., V) or projections, in any mixture, give (...) for reduction ``none``; ``weight`` (...) is how much each token counts.
    Raises ValueError where tokens or classes differ.
    """
    values = token_divergence(student, teacher, reverse_kl, temperature, weight)
    return reduce_tokens(values * temperature**2 if scale else values, weight, reduction)


class ReverseKL(TokenObjective):
    """The student keeps to what the teacher holds likely, and may leave out the rest; logits (..., V) or projections.

    ``temperature``: divides the logits.
    ``scale``: the factor T².
    ``vocabulary``: classes from this number on are padding, of no probability on either side.
    """

    card = Card(
        "MiniLLM: Knowledge Distillation of Large Language Models",
        "https://arxiv.org/abs/2306.08543",
        "ICLR",
        2024,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        deviations="The paper minimises the divergence of whole sequences by a policy gradient, of which this is the single-step part, exact over "
        "the vocabulary: the divergence at each position of the given text, without the effect of a token on later ones.",
        equation=r"T^2 \sum_v p^s_v \log \frac{p^s_v}{p^t_v}",
        use="A student that is too small for all of the teacher, above all on text that the student wrote itself, where it is what on-policy "
        "distillation minimises.",
        pitfalls="It seeks modes: on given text alone the student may drop what the teacher says less often. Its gradient nearly vanishes where the "
        "student gives no probability, so begin from a student that has been trained. Where the teacher's logit is minus infinity the loss is too.",
    )

    def term(self, batch: Batch) -> Divergence:
        return reverse_kl
