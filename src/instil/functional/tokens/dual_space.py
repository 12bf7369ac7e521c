"""Divergences of two language models in the hidden space of either model."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from instil.core import UNLABELLED, to_float32
from instil.functional.feature_maps import require_dims
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
    """Losses in the hidden space of the student (Zhang et al. 2024, Eqs. 7 and 8).

    Args:
        student: student logits (..., V).
        projected: logits (..., V) of the student's head for projected teacher states.
        target: token ids (...); -100 for none.
        temperature: softmax temperature of the divergence.
        divergence: name of the divergence.
        weight: (...), weight of each token; the divergence is 0 where it is 0.

    Returns:
        Cross-entropy (...) of the projected teacher, and divergence (...) of the student from it.
    """
    require_dims(projected, 2, "teacher_in_student")
    cross_entropy = F.cross_entropy(
        to_float32(projected).flatten(0, -2),
        target.flatten(),
        reduction="none",
        ignore_index=UNLABELLED,
    )
    divergences = token_divergence(
        student, projected.detach(), TERMS[divergence], temperature, weight
    )
    return cross_entropy.view(target.shape), divergences


def teacher_space(
    teacher: Tensor, projected: Tensor, temperature: float, weight: Tensor | None = None
) -> Tensor:
    """KL divergence in the hidden space of the teacher (Zhang et al. 2024, Eq. 9).

    Args:
        teacher: teacher logits (..., V).
        projected: logits (..., V) of the teacher's head for projected student states.
        temperature: softmax temperature.
        weight: (...), weight of each token; the divergence is 0 where it is 0.

    Returns:
        (...).
    """
    return token_divergence(projected, teacher, forward_kl, temperature, weight)


def frozen_head_logits(head: tuple[Tensor, Tensor], states: Tensor) -> Tensor:
    """Logits (..., V) of states (..., H) and a head (weight, bias) that gets no gradient."""
    weight, bias = (to_float32(part).detach() for part in head)
    return F.linear(states, weight, bias)
