"""Cover all of what the teacher says: the KL divergence from it, of tokens, in constant memory."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Card
from instil.functional.tokens.divergence import reduced_tokens, token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.terms import Term, forward_kl
from instil.objectives.bases.token_objective import TokenObjective


def forward_kl_loss(
    student: Signal,
    teacher: Signal,
    temperature: float = 1.0,
    scale: bool = True,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """T² KL(teacher || student) of every token (Kim & Rush 2016, Eq. 6 with the teacher's entropy taken off; Hinton et al. 2014 for T).

    Logits (..., V) or projections, in any mixture, give (...) for reduction ``none``; ``weight`` (...) is how much each token counts.
    Raises ValueError where tokens or classes differ.
    """
    values = token_divergence(student, teacher, forward_kl, temperature, weight)
    return reduced_tokens(values * temperature**2 if scale else values, weight, reduction)


class ForwardKL(TokenObjective):
    """The student gives probability to all that the teacher holds possible; logits (..., V) or projections.

    ``temperature``: divides the logits.
    ``scale``: the factor T².
    ``vocabulary``: classes from this number on are padding, of no probability on either side.
    """

    card = Card(
        "Sequence-Level Knowledge Distillation (word-level)",
        "https://arxiv.org/abs/1606.07947",
        "EMNLP",
        2016,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        deviations="The paper's word-level loss is a cross-entropy; here the teacher's entropy is taken off, which leaves the gradient and makes the "
        "value 0 at a match. torchtune and DistiLLM keep it. The default temperature is 1, as language models use it; kd has 4.",
        equation=r"T^2 \sum_v p^t_v \log \frac{p^t_v}{p^s_v}",
        use="The first thing to try between language models of one vocabulary, on given text. With projections (hidden state and head) of both sides "
        "the memory does not grow with the tokens times the vocabulary.",
        pitfalls="A small student spreads itself over all modes of the teacher, and then generates what neither would say: reverse_kl or jsd on the "
        "student's own text does not. Published weights of code that averages over the vocabulary must be divided by its size.",
    )

    def term(self, batch: Batch) -> Term:
        return forward_kl
