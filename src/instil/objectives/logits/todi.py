"""Forward and reverse KL divergence, mixed for each class by the ratio of its probabilities."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds
from instil.functional.tokens.divergence import reduce_tokens, token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.terms import Divergence, token_wise_kl
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary


@check_bounds
def todi_loss(
    student_logits: Signal,
    teacher_logits: Signal,
    beta: Annotated[float, Ge(0)] = 1.0,
    temperature: Positive = 1.0,
    scale: bool = True,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Token-wise distillation loss (Jung et al. 2025, Eq. 7).

    For teacher probabilities ``p`` and student probabilities ``q``, the sum over the classes of
    ``w p log(p / q) + (1 - w) q log(q / p)`` with ``w = sigmoid(beta * log(p / q))``. The weights
    are constants for the gradient. ``beta = 0`` gives half of each divergence.

    Args:
        student_logits: logits (..., V), or a projection (hidden states and head).
        teacher_logits: logits (..., V), or a projection.
        beta: steepness of the weight, >= 0.
        temperature: softmax temperature, > 0.
        scale: multiply by ``temperature ** 2``.
        weight: weight of each token (...), 0 for tokens that do not count.
        reduction: ``"mean"`` over the tokens that count, or ``"none"``.

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the tokens or the classes differ.

    Example:
        >>> import torch
        >>> todi_loss(torch.zeros(2, 3), torch.eye(3)[:2])
        tensor(0.2428)
    """
    term = token_wise_kl(beta)
    values = token_divergence(student_logits, teacher_logits, term, temperature, weight)
    return reduce_tokens(values * temperature**2 if scale else values, weight, reduction)


class ToDi(TokenObjective):
    """Forward KL where the student underestimates a class, reverse KL where it overestimates it.

    Reads logits (..., V) or projections.
    """

    card = Card(
        "ToDi: Token-wise Distillation via Fine-Grained Divergence Control",
        "https://arxiv.org/abs/2505.16297",
        "EMNLP",
        2025,
        source="logits",
        algorithms=("adaptive",),
        tasks=("classification", "language"),
        labels=("single",),
        equation=r"T^2 \sum_v \Big( w_v p^t_v \log \tfrac{p^t_v}{p^s_v} + (1 - w_v) p^s_v \log "
        r"\tfrac{p^s_v}{p^t_v} \Big), \quad w_v = \sigma\big(\beta \log "
        r"\tfrac{p^t_v}{p^s_v}\big)",
        use="For language models whose student has too little mass on some tokens and too much "
        "on others. Each class gets the divergence with the larger gradient. It needs no "
        "sorting, unlike akl, which sets one weight per token position.",
        pitfalls="A class to which the teacher gives probability 0 makes the reverse part "
        "infinite unless the student excludes it too. The paper reports instruction tuning "
        "only; it gives no result for images.",
    )

    def __init__(
        self,
        beta: Annotated[
            float,
            Ge(0),
            Doc("steepness of the weight as a function of the log-ratio of the probabilities"),
        ] = 1.0,
        temperature: Annotated[Positive, Doc("softmax temperature of both sides")] = 1.0,
        scale: Annotated[bool, Doc("multiply the loss by temperature ** 2")] = True,
        vocabulary: Annotated[
            Vocabulary, Doc("number of classes without padding; None: all classes")
        ] = None,
    ):
        super().__init__(temperature, scale, vocabulary)
        self.beta = beta

    def term(self, batch: Batch) -> Divergence:
        return token_wise_kl(self.beta)
