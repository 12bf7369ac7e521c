"""Adaptive KL: forward or reverse KL for each token, by where student and teacher differ."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt, Le
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds
from instil.functional.tokens.divergence import reduce_tokens, token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.terms import Divergence, adaptive_kl
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary

Mass = Annotated[float, Gt(0), Le(1)]


@check_bounds
def akl_loss(
    student_logits: Signal,
    teacher_logits: Signal,
    head_mass: Mass = 0.5,
    temperature: Positive = 1.0,
    scale: bool = True,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Adaptive KL divergence of teacher p and student q (Wu et al. 2025).

    ``h KL(p || q) + (1 - h) KL(q || p)`` for each token. The share ``h`` is the part of
    ``sum(abs(p - q))`` that lies in the head. The head holds the teacher's most probable classes
    while their total probability is at most ``head_mass``, and always the first one. The gradient
    treats ``h`` as a constant. Memory does not grow with tokens times vocabulary.

    Args:
        student_logits: student logits (..., V), or a projection (hidden states and head).
        teacher_logits: teacher logits (..., V), or a projection.
        head_mass: largest total probability of the head, in (0, 1].
        temperature: softmax temperature, > 0.
        scale: multiply by ``temperature ** 2``.
        weight: weight of each token (...), 0 for tokens that do not count.
        reduction: ``"mean"`` over the tokens that count, or ``"none"``.

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if tokens or classes differ.

    Example:
        >>> import torch
        >>> akl_loss(torch.zeros(2, 3), torch.eye(3)[:2])
        tensor(0.1214)
    """
    term = adaptive_kl(head_mass)
    values = token_divergence(student_logits, teacher_logits, term, temperature, weight)
    return reduce_tokens(values * temperature**2 if scale else values, weight, reduction)


class AKL(TokenObjective):
    """Forward KL for tokens whose head is far off, reverse KL for tokens whose tail is.

    Logits are (..., V), or projections.
    """

    card = Card(
        "Rethinking Kullback-Leibler Divergence in Knowledge Distillation for Large Language "
        "Models",
        "https://arxiv.org/abs/2404.02657",
        "COLING",
        2025,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        deviations="The head is that of the authors' code: classes in descending order of "
        "probability, the first always included. DSKD instead accumulates the tail from the least "
        "probable class. TAID's copy sorts the mask instead of the gap.",
        equation=r"T^2 \Big( \tfrac{g_h}{g_h + g_l} \mathrm{KL}(p^t \Vert p^s) + \tfrac{g_l}{g_h + "
        r"g_l} \mathrm{KL}(p^s \Vert p^t) \Big), \quad g = \sum |p^t - p^s|",
        use="Given text and few epochs, when it is unclear which direction of the KL divergence "
        "suits the student.",
        pitfalls="It sorts the vocabulary for every token, so it is the slowest of the token "
        "divergences. After long training all directions give the same result, as the paper shows.",
    )

    def __init__(
        self,
        head_mass: Annotated[
            Mass, Doc("largest total probability of the teacher's head classes")
        ] = 0.5,
        temperature: Annotated[Positive, Doc("softmax temperature of both sides")] = 1.0,
        scale: Annotated[bool, Doc("multiply the loss by temperature²")] = True,
        vocabulary: Annotated[
            Vocabulary,
            Doc(
                "number of classes without padding; later ones have probability 0 on both sides. "
                "None: all"
            ),
        ] = None,
    ):
        super().__init__(temperature, scale, vocabulary)
        self.head_mass = head_mass

    def term(self, batch: Batch) -> Divergence:
        return adaptive_kl(self.head_mass)
