"""Divergence between the teacher's top K classes, with the other classes as one tail class."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Lt
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds
from instil.functional.tokens.chunks import chunked_loss
from instil.functional.tokens.divergence import reduce_tokens
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.support import Support, TopKWithTailKL, top_k_support
from instil.functional.tokens.terms import Divergence, forward_kl, jsd, reverse_kl, total_variation
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary
from instil.roles import Top

DivergenceName = Literal["forward_kl", "reverse_kl", "jsd", "tvd"]


def divergence_by_name(divergence: DivergenceName, beta: float) -> Divergence:
    """Divergence with this name; ``beta`` is the teacher's share of the mixture in ``"jsd"``.

    Raises:
        ValueError: if ``beta`` is not in (0, 1); at the limits the JSD is constantly 0.
    """
    if not 0 < beta < 1:
        raise ValueError(
            f"beta: value out of range. Expected a number between 0 and 1, got {beta}. "
            "Use forward_kl or reverse_kl for the limits."
        )
    return {
        "forward_kl": forward_kl,
        "reverse_kl": reverse_kl,
        "jsd": jsd(beta),
        "tvd": total_variation,
    }[divergence]


@check_bounds
def top_k_loss(
    student_logits: Signal,
    teacher_logits: Signal | Top,
    k: Annotated[int, Ge(1)] = 64,
    divergence: DivergenceName = "forward_kl",
    beta: Annotated[float, Gt(0), Lt(1)] = 0.5,
    support: Support = "teacher",
    tail: bool = True,
    temperature: Positive = 1.0,
    scale: bool = True,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Divergence between distributions over the top K classes and a tail class.

    Computed for each token in constant memory.

    Args:
        student_logits: logits (..., V), or a projection (hidden states and head).
        teacher_logits: logits (..., V), a projection, or a ``Top`` record with its own classes.
        k: number of top classes.
        divergence: ``"forward_kl"``, ``"reverse_kl"``, ``"jsd"`` or ``"tvd"``.
        beta: share of the teacher in the mixture of ``"jsd"``, in (0, 1).
        support: ``"teacher"``, ``"student"`` or ``"both"``: source of the top classes.
        tail: add all other classes as one class. If False, the probabilities of the top classes
            are renormalised to sum to 1.
        temperature: softmax temperature, > 0; 1 for a ``Top``.
        scale: multiply by ``temperature ** 2``.
        weight: weight of each token (...), 0 for tokens that do not count.
        reduction: ``"mean"`` over the tokens that count, or ``"none"``.

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if tokens or classes differ, or if a ``Top`` is combined with another
            temperature than 1 or another support than ``"teacher"``.

    Example:
        >>> import torch
        >>> top_k_loss(torch.zeros(2, 4), torch.eye(4)[:2], k=1)
        tensor(0.1180)
    """
    classes = top_k_support(student_logits, teacher_logits, k, support, tail, temperature)
    target = TopKWithTailKL(classes, divergence_by_name(divergence, beta))
    values = chunked_loss(student_logits, target, temperature, weight)
    return reduce_tokens(values * temperature**2 if scale else values, weight, reduction)


class TopK(TokenObjective):
    """Divergence of distributions over the teacher's top K classes and one tail class.

    The value is a lower bound of the divergence over all classes. It is zero only if the top K
    classes and the tail agree. Reads ``top`` (recorded, any K), or the top K classes of a live
    teacher's logits or projection.
    """

    card = Card(
        "Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs",
        "https://arxiv.org/abs/2503.16870",
        "ACL",
        2025,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        deviations="The paper shows that the top K classes alone are biased, and samples "
        "classes instead (sampled_kd). Here the tail is one more class, as in the caches of "
        "Megatron-LM and DistillKit. This is a divergence of a coarser distribution, whose "
        "minimum is the teacher itself.",
        equation=r"T^2 \Big( \sum_{v \in K} p^t_v \log \frac{p^t_v}{p^s_v} + (1 - P^t) \log "
        r"\frac{1 - P^t}{1 - P^s} \Big), \quad P = \sum_{v \in K} p_v",
        use="For a recorded teacher, or a server that returns its top log-probabilities. Hidden "
        "states, if they can be stored, are exact and of similar size.",
        pitfalls="Classes inside the tail are not compared. With tail=False, the total "
        "probability of the tail is unconstrained. With support: student, the classes change "
        "with the student.",
    )
    needs: ClassVar = {
        "student": (("projection", "logits"),),
        "teacher": (("top", "projection", "logits"),),
    }

    def __init__(
        self,
        k: Annotated[int, Ge(1), Doc("number of top classes")] = 64,
        divergence: Annotated[
            DivergenceName, Doc("divergence of the coarse distributions")
        ] = "forward_kl",
        beta: Annotated[
            float, Gt(0), Lt(1), Doc("share of the teacher in the mixture of jsd")
        ] = 0.5,
        support: Annotated[
            Support, Doc("source of the top classes; student and both need a live teacher")
        ] = "teacher",
        tail: Annotated[
            bool, Doc("add all other classes as one class; false: ignore their probability")
        ] = True,
        temperature: Annotated[
            Positive, Doc("softmax temperature; 1 for a recorded teacher")
        ] = 1.0,
        scale: Annotated[bool, Doc("multiply the loss by temperature ** 2")] = True,
        vocabulary: Annotated[
            Vocabulary, Doc("number of classes without padding; None: all classes")
        ] = None,
    ):
        super().__init__(temperature, scale, vocabulary)
        self.k = k
        self.divergence = divergence
        self.beta = beta
        self.support = support
        self.tail = tail

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
            self.support,
            self.tail,
            self.temperature,
            self.vocabulary,
        )
        return chunked_loss(
            student_logits,
            TopKWithTailKL(classes, divergence_by_name(self.divergence, self.beta)),
            self.temperature,
            self.weight(batch),
            self.vocabulary,
        )
