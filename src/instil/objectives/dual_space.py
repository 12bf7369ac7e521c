"""Two language models compared in the space of either: what a head makes of the other's states, and projections each way."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import UNLABELLED, Objective, Outputs, Positive, full
from instil.objectives.adapters import like
from instil.objectives.token_divergence import token_divergence
from instil.objectives.token_terms import (
    Term,
    adaptive_kl,
    forward_kl,
    jsd,
    reverse_kl,
    skewed_forward_kl,
    skewed_reverse_kl,
)

Divergence = Literal[
    "forward_kl", "reverse_kl", "jsd", "skewed_forward_kl", "skewed_reverse_kl", "adaptive_kl"
]
TERMS: dict[str, Term] = {
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
    divergence: Divergence,
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


def through(head: tuple[Tensor, Tensor], states: Tensor) -> Tensor:
    """Logits that a head (weight, bias) makes of states, without learning from them."""
    weight, bias = (full(part).detach() for part in head)
    return F.linear(states, weight, bias)


class DualSpace(Objective):
    """What has a projection each way: states of the teacher to the student's width, and of the student to the teacher's."""

    needs: ClassVar = dict.fromkeys(
        ("student", "teacher"), (("logits",), ("embedding",), ("head",))
    )

    aligns = True

    def __init__(self, temperature: Positive = 2.0, divergence: Divergence = "forward_kl"):
        super().__init__()
        self.temperature, self.divergence = temperature, divergence
        self.to_student: nn.Module = nn.Identity()
        self.to_teacher: nn.Module = nn.Identity()

    def build(self, student: Outputs, teacher: Outputs) -> None:
        mine, theirs = student["embedding"], teacher["embedding"]
        where = {"device": mine.device, "dtype": full(mine).dtype}
        self.to_student = nn.Linear(theirs.shape[-1], mine.shape[-1], **where)
        self.to_teacher = nn.Linear(mine.shape[-1], theirs.shape[-1], **where)

    def projected(self, module: nn.Module, states: Tensor) -> Tensor:
        """States in the other's space."""
        moved: Tensor = module(like(module, full(states)))
        return moved
