"""The forward KL divergence as a few drawn classes estimate it, without bias, of tokens, in constant memory."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from annotated_types import Ge
from torch import Tensor

from instil.core import Batch, Card, Sampled, size, uniform
from instil.functional.tokens.divergence import (
    as_constant,
    chunked_loss,
    reduce_tokens,
    require_same_tokens,
    token_shape,
)
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.support import SampledForwardKL, require_teacher_tokens
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary


def sampled_kd_loss(
    student: Signal, teacher: Sampled, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """(1/n) sum w (log p - log q) over n drawn classes of every token, w = p / proposal (Anshumann et al. 2025).

    Over the draws its mean is KL(teacher || student), and that of its gradient the gradient. Logits (..., V) or a projection of the student and
    ids (..., n) of the teacher give (...) for reduction ``none``; ``weight`` (...) is how much each token counts. Raises ValueError where the
    tokens differ.
    """
    require_teacher_tokens(student, teacher.ids.shape[:-1])
    return reduce_tokens(
        chunked_loss(student, SampledForwardKL(teacher, 1.0), weight=weight), weight, reduction
    )


class SampledKD(TokenObjective):
    """forward_kl from classes that were drawn by the teacher: a record of it that is as small as the top K, and not biased.

    Reads ``sampled`` (recorded, of any number), or draws from a live teacher's logits or projection by (seed, step, index).

    ``draws``: how many classes are drawn of a live teacher.
    ``vocabulary``: classes from this number on are padding, of no probability on either side.
    """

    card = Card(
        "Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs",
        "https://arxiv.org/abs/2503.16870",
        "ACL",
        2025,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        deviations="The log-probabilities of the drawn classes are subtracted, so that the value estimates the KL divergence and not the "
        "cross-entropy, with the same gradient.",
        equation=r"\frac{1}{n} \sum_{i=1}^n w_i \log \frac{p^t_{v_i}}{p^s_{v_i}}, \quad v_i \sim \pi, \quad w_i = p^t_{v_i} / \pi_{v_i}",
        use="A recorded teacher over a large vocabulary, where top_k would leave out a long tail. 50 draws a token are enough in the paper.",
        pitfalls="One value is noisy, and may be negative: only the mean over tokens says something. Other divergences cannot be estimated from it.",
    )
    needs: ClassVar = {
        "student": (("projection", "logits"),),
        "teacher": (("sampled", "projection", "logits"),),
    }
    refuses: ClassVar = {
        "top": "the likeliest classes are no draws, and an estimate from them is biased: top_k",
        "text": "one token is drawn of each position, and its probability is not known: cross_entropy",
    }

    def __init__(self, draws: Annotated[int, Ge(1)] = 50, vocabulary: Vocabulary = None):
        super().__init__(1.0, False, vocabulary)
        self.draws = draws

    def values(self, student: Signal, teacher: Any, batch: Batch) -> Tensor:
        if isinstance(teacher, Sampled):
            require_teacher_tokens(student, teacher.ids.shape[:-1])
            return chunked_loss(
                student,
                SampledForwardKL(teacher, 1.0),
                weight=self.weight(batch),
                vocabulary=self.vocabulary,
            )
        require_same_tokens(student, teacher, self.vocabulary)
        positions = token_shape(student).numel() // size(batch)
        numbers = uniform(batch, positions * self.draws, salt=23).reshape(-1, self.draws)
        return chunked_loss(
            student,
            SampledForwardKL(as_constant(teacher, self.vocabulary), 1.0, numbers),
            weight=self.weight(batch),
            vocabulary=self.vocabulary,
        )
