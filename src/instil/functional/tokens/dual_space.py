"""Divergences of two language models in the hidden space of either model."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from instil.core import UNLABELLED, full
from instil.functional.tokens.divergence import token_divergence
from instil.functional.tokens.terms import (
    Divergence,
    adaptive_kl,
    forward_kl,
    jsd,
    reverse_kl,
    skewed_forward_kl,
    skewed_reverse_kl,
)

DualSpaceDivergence = Literal[
    "forward_kl", "reverse_kl", "jsd", "skewed_forward_kl", "skewed_reverse_kl", "adaptive_kl"
]


TERMS: dict[str, Divergence] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": jsd(0.5),
    "skewed_forward_kl": skewed_forward_kl(0.1),
    "skewed_reverse_kl": skewed_reverse_kl(0.1),
    "adaptive_kl": adaptive_kl(0.5),
}


def student_space(
    student: Tensor,
    projected: Tensor,
    target: Tensor,
    temperature: float,
    divergence: DualSpaceDivergence,
    weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(...) each: the cross-entropy of the projected teacher, and the student's divergence from it (Eqs. 7 and 8).

    Where ``weight`` (...) is 0 the divergence is 0, whatever the logits are.
    """
    labelled = F.cross_entropy(
        full(projected).flatten(0, -2), target.flatten(), reduction="none", ignore_index=UNLABELLED
    )
    return labelled.view(target.shape), token_divergence(
        student, projected.detach(), TERMS[divergence], temperature, weight
    )


def teacher_space(
    teacher: Tensor, projected: Tensor, temperature: float, weight: Tensor | None = None
) -> Tensor:
    """(...): the projected student's KL divergence from the teacher (Eq. 9); 0 where ``weight`` (...) is 0."""
    return token_divergence(projected, teacher, forward_kl, temperature, weight)


def frozen_head_logits(head: tuple[Tensor, Tensor], states: Tensor) -> Tensor:
    """Logits that a head (weight, bias) makes of states, without learning from them."""
    weight, bias = (full(part).detach() for part in head)
    return F.linear(states, weight, bias)
