"""Pairwise ranking loss on the teacher's top classes, for tokens, in constant memory."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds
from instil.functional.tokens.chunks import chunked_loss
from instil.functional.tokens.divergence import reduce_tokens
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.support import PairwiseRanking, top_k_support
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary
from instil.roles import Top

PairwiseLoss = Literal["logistic", "hinge"]


@check_bounds
def top_k_ranking_loss(
    student_logits: Signal,
    teacher_logits: Signal | Top,
    k: Annotated[int, Ge(2)] = 16,
    kind: PairwiseLoss = "logistic",
    margin: float | None = None,
    temperature: Positive = 1.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Pairwise ranking loss on the teacher's top K classes (Burges et al. 2005, Eq. 3).

    Sum over the pairs ``p_k > p_l`` of the teacher, divided by ``K * (K - 1) / 2``. The logistic
    loss of a pair is ``log(1 + q_l / q_k)``, the hinge loss ``max(0, margin - (q_k - q_l))``.

    Args:
        student_logits: logits (..., V), or a projection (hidden states and head).
        teacher_logits: logits (..., V), a projection, or a ``Top`` record.
        k: number of top classes, >= 2.
        kind: ``"logistic"`` or ``"hinge"``.
        margin: margin of the hinge loss; None: the teacher's difference ``p_k - p_l``.
        temperature: softmax temperature, > 0; 1 for a ``Top``.
        weight: weight of each token (...), 0 for tokens that do not count.
        reduction: ``"mean"`` over the tokens that count, or ``"none"``.

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if tokens or classes differ, or if a ``Top`` is combined with another
            temperature than 1.

    Example:
        >>> import torch
        >>> top_k_ranking_loss(torch.zeros(1, 3), torch.tensor([[2.0, 1.0, 0.0]]), k=2)
        tensor(0.6931)
    """
    classes = top_k_support(student_logits, teacher_logits, k, temperature=temperature)
    values = chunked_loss(
        student_logits, PairwiseRanking(classes, kind, margin), temperature, weight
    )
    return reduce_tokens(values, weight, reduction)


class TopKRanking(TokenObjective):
    """Ranking loss on the order of the teacher's top classes; their probabilities are not matched.

    Reads ``top``, logits or projections.
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
        deviations="Only pairs among the teacher's top K classes are used, as in DistillKit. "
        "The mean is over tokens and K (K - 1) / 2 pairs. DistillKit divides by the number of "
        "pairs without ties in the whole batch.",
        equation=r"\frac{2}{K (K - 1)} \sum_{k, l \in K: p^t_k > p^t_l} \log\Big(1 + "
        r"\frac{p^s_l}{p^s_k}\Big)",
        use="In addition to a divergence, if the order of the first choice and its alternatives "
        "matters more than their exact probabilities.",
        pitfalls="The loss alone determines no probabilities. logistic has no minimum: the "
        "student's differences grow without bound. The cost grows like K².",
    )
    needs: ClassVar = {
        "student": (("projection", "logits"),),
        "teacher": (("top", "projection", "logits"),),
    }

    def __init__(
        self,
        k: Annotated[int, Ge(2), Doc("number of top classes")] = 16,
        kind: Annotated[
            PairwiseLoss,
            Doc(
                "logistic: loss on the logits; hinge: loss on the probabilities, with the "
                "teacher's differences as margins"
            ),
        ] = "logistic",
        temperature: Annotated[
            Positive, Doc("softmax temperature; 1 for a recorded teacher")
        ] = 1.0,
        vocabulary: Annotated[
            Vocabulary, Doc("number of classes without padding; None: all classes")
        ] = None,
    ):
        super().__init__(temperature, False, vocabulary)
        self.k = k
        self.kind = kind

    def rejected_roles(self) -> dict[str, str]:
        """Reason why each other signal cannot satisfy the needs."""
        return {
            "sampled": "sampled classes are not the top classes: use sampled_kd",
            "text": "text has no probabilities of other classes: use cross_entropy",
        }

    def values(self, student_logits: Signal, teacher_signal: Any, batch: Batch) -> Tensor:
        classes = top_k_support(
            student_logits,
            teacher_signal,
            self.k,
            temperature=self.temperature,
            vocabulary=self.vocabulary,
        )
        return chunked_loss(
            student_logits,
            PairwiseRanking(classes, self.kind),
            self.temperature,
            self.weight(batch),
            self.vocabulary,
        )
