"""Weighted mean of forward and reverse KL divergence, for tokens, in constant memory."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds
from instil.functional.tokens.divergence import reduce_tokens, token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.terms import Divergence, symmetric_kl
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary


@check_bounds
def symmetric_kl_loss(
    student_logits: Signal,
    teacher_logits: Signal,
    forward_share: Annotated[float, Ge(0), Le(1)] = 0.5,
    temperature: Positive = 1.0,
    scale: bool = True,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Symmetric KL divergence (Kullback & Leibler 1951, halved for a share of 0.5).

    ``forward_share * KL(p || q) + (1 - forward_share) * KL(q || p)`` for the teacher's distribution
    ``p`` and the student's ``q``.

    Args:
        student_logits: logits (..., V), or a projection (hidden states and head).
        teacher_logits: logits (..., V), or a projection.
        forward_share: weight of the forward KL divergence, in [0, 1].
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
        >>> symmetric_kl_loss(torch.zeros(2, 3), torch.eye(3)[:2])
        tensor(0.1214)
    """
    term = symmetric_kl(forward_share)
    values = token_divergence(student_logits, teacher_logits, term, temperature, weight)
    return reduce_tokens(values * temperature**2 if scale else values, weight, reduction)


class SymmetricKL(TokenObjective):
    """Weighted mean of forward and reverse KL divergence in one pass.

    Reads logits (..., V) or projections.
    """

    card = Card(
        "On Information and Sufficiency",
        "https://doi.org/10.1214/aoms/1177729694",
        "Ann. Math. Stat.",
        1951,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        deviations="The code of torchtune and DistiLLM adds a cross-entropy, which includes the "
        "teacher's entropy, to a true reverse KL: the gradient is the same. The option ratio of "
        "torchtune is forward_share; lam of DistiLLM is 1 - forward_share.",
        equation=r"T^2 \big( w \mathrm{KL}(p^t \Vert p^s) + (1 - w) \mathrm{KL}(p^s \Vert p^t) "
        r"\big)",
        use="A compromise between mode covering (forward) and mode seeking (reverse). akl sets "
        "the share by itself for each token.",
        pitfalls="Classes to which one side gives almost no probability dominate the loss, "
        "unlike in jsd, which is bounded.",
    )

    def __init__(
        self,
        forward_share: Annotated[
            float,
            Ge(0),
            Le(1),
            Doc("weight of the forward KL divergence; the reverse one has the rest"),
        ] = 0.5,
        temperature: Annotated[Positive, Doc("softmax temperature")] = 1.0,
        scale: Annotated[bool, Doc("multiply the loss by temperature ** 2")] = True,
        vocabulary: Annotated[
            Vocabulary, Doc("number of classes without padding; None: all classes")
        ] = None,
    ):
        super().__init__(temperature, scale, vocabulary)
        self.forward_share = forward_share

    def term(self, batch: Batch) -> Divergence:
        return symmetric_kl(self.forward_share)
