"""The classes that the teacher finds likeliest, and all others together as one, of tokens, in constant memory."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Lt
from torch import Tensor

from instil.core import Batch, Card, Positive, Top
from instil.functional.tokens.divergence import chunked_loss, reduce_tokens
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.support import Support, TopKWithTailKL, top_k_support
from instil.functional.tokens.terms import Divergence, forward_kl, jsd, reverse_kl, total_variation
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary

DivergenceName = Literal["forward_kl", "reverse_kl", "jsd", "tvd"]
Share = Annotated[float, Gt(0), Lt(1)]


def divergence_by_name(divergence: DivergenceName, beta: float) -> Divergence:
    """The divergence of this name; ValueError for a beta at which jsd is 0 whatever the student says."""
    if not 0 < beta < 1:
        raise ValueError(
            f"beta is {beta}; expected a number between 0 and 1, whose limits are forward_kl and reverse_kl"
        )
    return {
        "forward_kl": forward_kl,
        "reverse_kl": reverse_kl,
        "jsd": jsd(beta),
        "tvd": total_variation,
    }[divergence]


def top_k_loss(
    student: Signal,
    teacher: Signal | Top,
    k: int = 64,
    divergence: DivergenceName = "forward_kl",
    beta: float = 0.5,
    support: Support = "teacher",
    tail: bool = True,
    temperature: float = 1.0,
    scale: bool = True,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """T² times a divergence of the distributions over K classes and, with ``tail``, all others as one, of every token.

    Without ``tail`` of both sides' distributions on the K classes alone, made to add up to 1. ``support``: whose K likeliest classes; a ``Top``
    brings its own. Logits (..., V) or projections, in any mixture, give (...) for reduction ``none``; ``weight`` (...) is how much each token
    counts. Raises ValueError where tokens or classes differ, and where a ``Top`` is asked for another temperature than 1 or another support.
    """
    target = TopKWithTailKL(
        top_k_support(student, teacher, k, support, tail, temperature),
        divergence_by_name(divergence, beta),
    )
    values = chunked_loss(student, target, temperature, weight)
    return reduce_tokens(values * temperature**2 if scale else values, weight, reduction)


class TopK(TokenObjective):
    """A divergence from what a small record of the teacher holds, exactly: no more than that of all classes, and zero only where K and tail agree.

    Reads ``top`` (recorded, of any K), or takes the K likeliest of a live teacher's logits or projection.

    ``k``: how many classes are told apart.
    ``divergence``: forward_kl, reverse_kl, jsd or tvd.
    ``beta``: of jsd, the teacher's share of the mixture.
    ``support``: whose likeliest classes; student and both need a live teacher.
    ``tail``: all other classes count as one; without it nothing is asked of their probability.
    ``temperature``: divides the logits; 1 for a recorded teacher.
    ``scale``: the factor T².
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
        deviations="The paper shows that the top K alone are biased, and samples (sampled_kd). The tail as one more class, as in the caches of "
        "Megatron-LM and DistillKit, makes it a divergence of a coarser distribution: its minimum is the teacher's own.",
        equation=r"T^2 \Big( \sum_{v \in K} p^t_v \log \frac{p^t_v}{p^s_v} + (1 - P^t) \log \frac{1 - P^t}{1 - P^s} \Big), \quad "
        r"P = \sum_{v \in K} p_v",
        use="A teacher that is recorded, or that a server gives by its top log-probabilities. Hidden states, where they can be kept, are exact "
        "and of like size.",
        pitfalls="Inside the tail nothing is compared. tail=False leaves its whole probability free. With support: student the classes change as "
        "the student moves.",
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
        k: Annotated[int, Ge(1)] = 64,
        divergence: DivergenceName = "forward_kl",
        beta: Share = 0.5,
        support: Support = "teacher",
        tail: bool = True,
        temperature: Positive = 1.0,
        scale: bool = True,
        vocabulary: Vocabulary = None,
    ):
        super().__init__(temperature, scale, vocabulary)
        self.k, self.divergence, self.beta, self.support, self.tail = (
            k,
            divergence,
            beta,
            support,
            tail,
        )

    def values(self, student: Signal, teacher: Any, batch: Batch) -> Tensor:
        classes = top_k_support(
            student, teacher, self.k, self.support, self.tail, self.temperature, self.vocabulary
        )
        return chunked_loss(
            student,
            TopKWithTailKL(classes, divergence_by_name(self.divergence, self.beta)),
            self.temperature,
            self.weight(batch),
            self.vocabulary,
        )
