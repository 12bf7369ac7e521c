"""The order of the classes that the teacher finds likeliest, of tokens, in constant memory."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge
from torch import Tensor

from instil.core import Batch, Card, Positive, Top
from instil.functional.tokens.divergence import chunked_loss, reduce_tokens
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.support import PairwiseRanking, top_k_support
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary

PairwiseLoss = Literal["logistic", "hinge"]


def top_k_ranking_loss(
    student: Signal,
    teacher: Signal | Top,
    k: int = 16,
    kind: PairwiseLoss = "logistic",
    margin: float | None = None,
    temperature: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Pairs of the teacher's K likeliest classes that the student has the other way round (Burges et al. 2005, Eq. 3), over K (K - 1) / 2.

    ``kind``: log(1 + q_l / q_k) for each pair p_k > p_l, or max(0, margin - (q_k - q_l)), the margin p_k - p_l where none is given.
    Logits (..., V) or projections, in any mixture, give (...) for reduction ``none``; ``weight`` (...) is how much each token counts.
    Raises ValueError where tokens or classes differ, and where a ``Top`` is asked for another temperature than 1.
    """
    target = PairwiseRanking(
        top_k_support(student, teacher, k, temperature=temperature), kind, margin
    )
    values = chunked_loss(student, target, temperature, weight)
    return reduce_tokens(values, weight, reduction)


class TopKRanking(TokenObjective):
    """Which of the likeliest classes comes before which; how likely they are is not matched. Reads ``top``, logits or projections.

    ``k``: how many classes are ranked.
    ``kind``: logistic on the logits, or hinge on the probabilities, which are to be as far apart as the teacher's.
    ``temperature``: divides the logits; 1 for a recorded teacher.
    ``vocabulary``: classes from this number on are padding, of no probability on either side.
    """

    card = Card(
        "Learning to Rank using Gradient Descent",
        "https://doi.org/10.1145/1102351.1102363",
        "ICML",
        2005,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        zero_at_match=False,
        deviations="Pairs among the teacher's K likeliest classes alone, as DistillKit has them; the mean is over tokens and K (K - 1) / 2 pairs, "
        "where DistillKit divides by the pairs without ties of the whole batch.",
        equation=r"\frac{2}{K (K - 1)} \sum_{k, l \in K: p^t_k > p^t_l} \log\Big(1 + \frac{p^s_l}{p^s_k}\Big)",
        use="Beside a divergence, where the first choice and its alternatives matter more than their exact probability.",
        pitfalls="Alone it settles no probability, and logistic has no minimum: the student's differences grow without end. Work grows by K².",
    )
    needs: ClassVar = {
        "student": (("projection", "logits"),),
        "teacher": (("top", "projection", "logits"),),
    }
    refuses: ClassVar = {
        "sampled": "drawn classes are not the likeliest ones: sampled_kd",
        "text": "text says nothing of other classes: cross_entropy",
    }

    def __init__(
        self,
        k: Annotated[int, Ge(2)] = 16,
        kind: PairwiseLoss = "logistic",
        temperature: Positive = 1.0,
        vocabulary: Vocabulary = None,
    ):
        super().__init__(temperature, False, vocabulary)
        self.k, self.kind = k, kind

    def values(self, student: Signal, teacher: Any, batch: Batch) -> Tensor:
        classes = top_k_support(
            student, teacher, self.k, temperature=self.temperature, vocabulary=self.vocabulary
        )
        return chunked_loss(
            student,
            PairwiseRanking(classes, self.kind),
            self.temperature,
            self.weight(batch),
            self.vocabulary,
        )
