"""The reverse KL divergence as the tokens that the student drew itself estimate it, in constant memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from instil.core import Batch, Card, LabelObjective, NonNegative
from instil.functional.tokens.divergence import (
    as_constant,
    chunked_loss,
    reduce_tokens,
    require_same_tokens,
    token_shape,
)
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.support import SampledReverseKL
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary


def opd_loss(
    student: Signal,
    teacher: Signal,
    drawn: Tensor,
    prefix: float = 0.0,
    weight: Tensor | None = None,
    vocabulary: int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """(log q - log p)² / 2 of the tokens ``drawn`` (...) by the student: over its draws the gradient is that of KL(student || teacher).

    That of log q - log p itself is 0 over the draws, and that of p / q - 1 + log q - log p is the forward KL's. ``prefix``: weights
    1 + prefix (1 - s), s the share of a row's sum of abs(log q - log p) that lies before the token. Logits (..., V) or projections, in any mixture,
    give (...) for reduction ``none``; ``weight`` (...) is how much each token counts. Raises ValueError where tokens or classes differ.
    """
    require_same_tokens(student, teacher, vocabulary)
    if drawn.shape != token_shape(student):
        raise ValueError(
            f"drawn tokens {tuple(drawn.shape)} for tokens {tuple(token_shape(student))}; expected one for each position"
        )
    ids = drawn.clamp_min(0).reshape(-1)
    target = SampledReverseKL(
        as_constant(teacher, vocabulary), ids, torch.ones(ids.shape, device=ids.device)
    )
    if prefix > 0:
        with torch.no_grad():
            gap = (2 * chunked_loss(student, target, weight=weight, vocabulary=vocabulary)).sqrt()
        rows = gap.reshape(gap.shape if gap.ndim > 1 else (-1, 1))
        target.factor = prefix_weights(rows, torch.ones_like(rows), prefix).reshape(-1)
    return reduce_tokens(
        chunked_loss(student, target, weight=weight, vocabulary=vocabulary), weight, reduction
    )


def prefix_weights(
    gap: Tensor, mask: Tensor, strength: float = 1.0, epsilon: float = 1e-8
) -> Tensor:
    """1 + strength (1 - s_t), s_t being the share of sum abs(gap) that lies before token t of its row (N, T): early tokens count more."""
    size = torch.where(mask.bool(), gap.detach().abs(), 0.0)
    share = (size.cumsum(1) - size) / size.sum(1, keepdim=True).clamp_min(epsilon)
    return 1 + strength * (1 - share)


class OPD(TokenObjective, LabelObjective):
    """reverse_kl of the labels alone, which must be tokens that the student drew; logits (..., V) or projections.

    ``prefix``: how much more the first tokens of a row count, where the student has not yet left the teacher's way.
    ``vocabulary``: classes from this number on are padding, of no probability on either side.
    """

    card = Card(
        "On-Policy Distillation",
        "https://thinkingmachines.ai/blog/on-policy-distillation/",
        "Thinking Machines Lab",
        2025,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        deviations="Backpropagated as half a square, which has the gradient of their policy gradient with log p - log q as advantage, and is zero at "
        "a match. The weights of prefix are those of TRL's IW-OPD.",
        equation=r"\tfrac{1}{2} \big(\log p^s_y - \log p^t_y\big)^2, \quad y \sim p^s",
        use="On the student's own text, where the teacher tells no more than how likely it finds what was written. With whole distributions "
        "reverse_kl is the same without the noise.",
        pitfalls="Only with the scheme on_policy, all of whose text is the student's: on given text it is no divergence, and pulls the student's "
        "probability of a label down to the teacher's.",
    )

    def __init__(self, prefix: NonNegative = 0.0, vocabulary: Vocabulary = None):
        super().__init__(1.0, False, vocabulary)
        self.prefix = prefix

    def values(self, student: Signal, teacher: Any, batch: Batch) -> Tensor:
        weight = self.weight(batch)
        return opd_loss(
            student, teacher, batch["label"], self.prefix, weight, self.vocabulary, "none"
        )
