"""Total variation distance between token distributions, in constant memory."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds
from instil.functional.tokens.divergence import reduce_tokens, token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.terms import Divergence, total_variation
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary


@check_bounds
def tvd_loss(
    student_logits: Signal,
    teacher_logits: Signal,
    temperature: Positive = 1.0,
    scale: bool = False,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Total variation distance (Wen et al. 2023): half the L1 distance of the probabilities.

    Args:
        student_logits: logits (..., V), or a projection (hidden states and head).
        teacher_logits: logits (..., V), or a projection.
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
        >>> tvd_loss(torch.zeros(2, 3), torch.eye(3)[:2])
        tensor(0.2428)
    """
    values = token_divergence(student_logits, teacher_logits, total_variation, temperature, weight)
    return reduce_tokens(values * temperature**2 if scale else values, weight, reduction)


class TVD(TokenObjective):
    """Total variation distance: symmetric, between 0 and 1, and without logarithm.

    Reads logits (..., V) or projections.
    """

    card = Card(
        "f-Divergence Minimization for Sequence-Level Knowledge Distillation",
        "https://arxiv.org/abs/2307.15190",
        "ACL",
        2023,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        deviations="No factor T², unlike DistillKit. The gradient of this divergence does not "
        "decrease like 1 / T², so the factor would not preserve its size.",
        equation=r"\tfrac{1}{2} \sum_v |p^t_v - p^s_v|",
        use="A bounded and symmetric divergence, for data where outliers of a noisy teacher "
        "dominate the KL divergences.",
        pitfalls="Its gradient keeps its size up to the match and nearly vanishes for classes "
        "with low student probability, so an untrained student learns slowly. Add "
        "cross_entropy, or start with forward_kl.",
    )

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("softmax temperature")] = 1.0,
        scale: Annotated[bool, Doc("multiply the loss by temperature ** 2")] = False,
        vocabulary: Annotated[
            Vocabulary, Doc("number of classes without padding; None: all classes")
        ] = None,
    ):
        super().__init__(temperature, scale, vocabulary)

    def term(self, batch: Batch) -> Divergence:
        return total_variation
