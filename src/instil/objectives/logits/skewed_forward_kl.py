"""Forward KL divergence from the teacher to a student mixed with the teacher, for tokens."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Lt
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds
from instil.functional.tokens.divergence import reduce_tokens, token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.terms import Divergence, PerTokenDivergence, skewed_forward_kl
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary


@check_bounds
def skewed_forward_kl_loss(
    student_logits: Signal,
    teacher_logits: Signal,
    skew: Annotated[float | Tensor, Ge(0), Lt(1)] = 0.1,
    temperature: Positive = 1.0,
    scale: bool = True,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Skewed KL divergence, KL(p || skew * p + (1 - skew) * q) (Ko et al. 2024).

    ``p`` is the teacher's distribution and ``q`` the student's. Computed in constant memory.

    Args:
        student_logits: logits (..., V), or a projection (hidden states and head).
        teacher_logits: logits (..., V), or a projection.
        skew: share of the teacher in the mixture, in [0, 1); scalar, or one value per token (...).
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
        >>> skewed_forward_kl_loss(torch.zeros(2, 3), torch.eye(3)[:2])
        tensor(0.0985)
    """
    if isinstance(skew, Tensor):
        # A skew per token must be cut into the same chunks as the logits.
        term: Divergence | PerTokenDivergence = PerTokenDivergence(skewed_forward_kl, skew)
    else:
        term = skewed_forward_kl(skew)
    values = token_divergence(student_logits, teacher_logits, term, temperature, weight)
    return reduce_tokens(values * temperature**2 if scale else values, weight, reduction)


class SkewedForwardKL(TokenObjective):
    """Forward KL that stays finite for classes with student probability 0.

    Reads logits (..., V) or projections.
    """

    card = Card(
        "DistiLLM: Towards Streamlined Distillation for Large Language Models",
        "https://arxiv.org/abs/2402.03898",
        "ICML",
        2024,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        deviations="The authors' code includes the teacher's entropy, which changes the value "
        "but not the gradient.",
        equation=r"T^2 \mathrm{KL}\big(p^t \Vert \lambda p^t + (1 - \lambda) p^s\big)",
        use="On given text, where plain forward_kl is dominated by tokens to which the student "
        "gives almost no probability: the mixture bounds its gradient.",
        pitfalls="The loss shrinks by about (1 - skew)² as the skew grows, so a larger skew "
        "also acts like a lower learning rate.",
    )

    def __init__(
        self,
        skew: Annotated[float, Ge(0), Lt(1), Doc("share of the teacher in the mixture")] = 0.1,
        temperature: Annotated[Positive, Doc("softmax temperature")] = 1.0,
        scale: Annotated[bool, Doc("multiply the loss by temperature ** 2")] = True,
        vocabulary: Annotated[
            Vocabulary, Doc("number of classes without padding; None: all classes")
        ] = None,
    ):
        super().__init__(temperature, scale, vocabulary)
        self.skew = skew

    def term(self, batch: Batch) -> Divergence:
        return skewed_forward_kl(self.skew)
