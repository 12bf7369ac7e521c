"""Reverse KL divergence from the student to a teacher mixed with the student, for tokens."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Lt
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds
from instil.functional.tokens.divergence import reduce_tokens, token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.terms import Divergence, PerTokenDivergence, skewed_reverse_kl
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary


@check_bounds
def skewed_reverse_kl_loss(
    student_logits: Signal,
    teacher_logits: Signal,
    skew: Annotated[float | Tensor, Ge(0), Lt(1)] = 0.1,
    through_mixture: bool = True,
    temperature: Positive = 1.0,
    scale: bool = True,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Skewed reverse KL divergence, KL(q || (1 - skew) * p + skew * q) (Ko et al. 2024).

    ``p`` is the teacher's distribution and ``q`` the student's. Computed in constant memory.

    Args:
        student_logits: logits (..., V), or a projection (hidden states and head).
        teacher_logits: logits (..., V), or a projection.
        skew: share of the student in the mixture, in [0, 1); scalar, or one value per token (...).
        through_mixture: let the gradient pass through the student in the mixture.
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
        >>> skewed_reverse_kl_loss(torch.zeros(2, 3), torch.eye(3)[:2])
        tensor(0.0967)
    """
    if isinstance(skew, Tensor):
        # A skew per token must be cut into the same chunks as the logits.
        term: Divergence | PerTokenDivergence = PerTokenDivergence(
            lambda values: skewed_reverse_kl(values, through_mixture), skew
        )
    else:
        term = skewed_reverse_kl(skew, through_mixture)
    values = token_divergence(student_logits, teacher_logits, term, temperature, weight)
    return reduce_tokens(values * temperature**2 if scale else values, weight, reduction)


class SkewedReverseKL(TokenObjective):
    """Reverse KL that stays finite for classes with teacher probability 0.

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
        deviations="In the paper and its first code, the gradient passes through the mixture. "
        "In the code of DistiLLM-2 it does not: through_mixture=False.",
        equation=r"T^2 \mathrm{KL}\big(p^s \Vert (1 - \lambda) p^t + \lambda p^s\big)",
        use="On text of the student, as in DistiLLM: mode seeking like reverse_kl, and bounded "
        "by log(1 / skew).",
        pitfalls="For tokens to which the teacher gives no probability, the loss is near its "
        "bound and its gradient is small: train the student first.",
    )

    def __init__(
        self,
        skew: Annotated[float, Ge(0), Lt(1), Doc("share of the student in the mixture")] = 0.1,
        through_mixture: Annotated[
            bool, Doc("let the gradient pass through the student in the mixture")
        ] = True,
        temperature: Annotated[Positive, Doc("softmax temperature")] = 1.0,
        scale: Annotated[bool, Doc("multiply the loss by temperature ** 2")] = True,
        vocabulary: Annotated[
            Vocabulary, Doc("number of classes without padding; None: all classes")
        ] = None,
    ):
        super().__init__(temperature, scale, vocabulary)
        self.skew = skew
        self.through_mixture = through_mixture

    def term(self, batch: Batch) -> Divergence:
        return skewed_reverse_kl(self.skew, self.through_mixture)
