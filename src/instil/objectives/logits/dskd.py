"""Each model speaks through the other's head: the two are compared in the space of either, whatever their vocabularies."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Card, Objective, Outputs, Positive, full
from instil.objectives.adapters import like
from instil.objectives.logit_objective import reduced
from instil.objectives.span_objective import at, partners, require_same_positions, span_ends
from instil.objectives.token_divergence import token_divergence
from instil.objectives.token_terms import Term, adaptive_kl, forward_kl, jsd, reverse_kl, skewed_forward_kl, skewed_reverse_kl

Divergence = Literal["forward_kl", "reverse_kl", "jsd", "skewed_forward_kl", "skewed_reverse_kl", "adaptive_kl"]
TERMS: dict[str, Term] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": jsd(0.5),
    "skewed_forward_kl": skewed_forward_kl(0.1),
    "skewed_reverse_kl": skewed_reverse_kl(0.1),
    "adaptive_kl": adaptive_kl(0.5),
}


def dskd_loss(
    student: Tensor,
    teacher: Tensor,
    into_student: Tensor,
    into_teacher: Tensor,
    target: Tensor,
    temperature: float = 2.0,
    divergence: Divergence = "forward_kl",
    reduction: str = "mean",
) -> Tensor:
    """Both terms of ``student_space`` and that of ``teacher_space`` (Zhang et al. 2024, Eq. 10), for logits of the same positions.

    Logits (..., V) and (..., V'): ``into_student`` (..., V) is what the student's head makes of the teacher's projected states, ``into_teacher``
    (..., V') the other way round; ``target`` (...) is -100 where there is none, and the first term 0. Raises ValueError for other shapes.
    """
    labelled, compared = student_space(student, into_student, target, temperature, divergence)
    return reduced(labelled + compared + teacher_space(teacher, into_teacher, temperature), reduction)


def student_space(student: Tensor, projected: Tensor, target: Tensor, temperature: float, divergence: Divergence) -> tuple[Tensor, Tensor]:
    """(...) each: the cross-entropy of the projected teacher, and the student's divergence from it (Eqs. 7 and 8)."""
    labelled = F.cross_entropy(full(projected).flatten(0, -2), target.flatten(), reduction="none", ignore_index=UNLABELLED)
    return labelled.view(target.shape), token_divergence(student, projected.detach(), TERMS[divergence], temperature)


def teacher_space(teacher: Tensor, projected: Tensor, temperature: float) -> Tensor:
    """(...): the projected student's KL divergence from the teacher (Eq. 9)."""
    return token_divergence(projected, teacher, forward_kl, temperature)


def through(head: tuple[Tensor, Tensor], states: Tensor) -> Tensor:
    """Logits that a head (weight, bias) makes of states, without learning from them."""
    weight, bias = (full(part).detach() for part in head)
    return F.linear(states, weight, bias)


class DualSpace(Objective):
    """What has a projection each way: states of the teacher to the student's width, and of the student to the teacher's."""

    needs: ClassVar = dict.fromkeys(("student", "teacher"), (("logits",), ("embedding",), ("head",)))

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


class DSKD(DualSpace):
    """The teacher's projected states, through the student's head, are what the student's logits are compared with, and the other way round.

    With a teacher of another tokenizer (``teacher.tokenizer``) those tokens count that both tokenizers have at the same bytes.

    ``temperature``: divides the logits.
    ``divergence``: in the student's space; in the teacher's it is the forward KL.
    """

    card = Card(
        "Dual-Space Knowledge Distillation for Large Language Models",
        "https://arxiv.org/abs/2406.17328",
        "EMNLP",
        2024,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        zero_at_match=False,
        deviations="Tokens of two tokenizers are aligned exactly, by bytes (as in the authors' second version, arXiv 2504.11426); their first way is "
        "dskd_cma. There is no factor T², as in their code.",
        equation=r"\mathrm{CE}\!\left(y, p^{t \to s}\right) + D\!\left(\mathrm{sg}\, p^{t \to s}, p^s\right) "
        r"+ \mathrm{KL}\!\left(p^t \,\|\, p^{s \to t}\right)",
        use="A teacher of another width or vocabulary whose head can be read. Both distributions come from one head, so that they can be alike.",
        pitfalls="The student learns from projected logits that are themselves learned: the first steps teach little. With tokenizers that rarely "
        "agree on a whole token few positions count; there uld counts all.",
    )

    def weight(self, batch: Batch) -> Tensor:
        weight = super().weight(batch)
        if "teacher_span" not in batch:
            return weight
        span, other = batch["span"], batch["teacher_span"]
        return (weight if weight.ndim == 2 else weight[:, None]) * (_alone(span) & _alone(other).gather(1, partners(span, other)))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        states, logits = teacher["embedding"], teacher["logits"]
        if "teacher_span" in batch:
            place = partners(batch["span"], batch["teacher_span"])
            states, logits = at(states, place), at(logits, place)
        require_same_positions(student["logits"], logits)
        of_teacher = through(student["head"], self.projected(self.to_student, states))
        of_student = through(teacher["head"], self.projected(self.to_teacher, student["embedding"]))
        target = batch["label"] if "label" in batch else torch.full(logits.shape[:-1], UNLABELLED, device=logits.device)
        return dskd_loss(student["logits"], logits, of_teacher, of_student, target, self.temperature, self.divergence, "none")


def _alone(span: Tensor) -> Tensor:
    """(N, T): whether a position is all of its span."""
    return span_ends(span) & (span != F.pad(span[:, :-1], (1, 0), value=-1))
