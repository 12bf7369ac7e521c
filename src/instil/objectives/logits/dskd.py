"""Each model speaks through the other's head: the two are compared in the space of either, whatever their vocabularies."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import UNLABELLED, Batch, Card, Outputs
from instil.functional.logits import reduced
from instil.functional.tokens.dual_space import Divergence, student_space, teacher_space, through
from instil.functional.tokens.spans import at, partners, require_same_positions, span_ends
from instil.objectives.bases.dual_space_objective import DualSpace


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
    return reduced(
        labelled + compared + teacher_space(teacher, into_teacher, temperature), reduction
    )


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
        return (weight if weight.ndim == 2 else weight[:, None]) * (
            _alone(span) & _alone(other).gather(1, partners(span, other))
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        states, logits = teacher["embedding"], teacher["logits"]
        if "teacher_span" in batch:
            place = partners(batch["span"], batch["teacher_span"])
            states, logits = at(states, place), at(logits, place)
        require_same_positions(student["logits"], logits)
        of_teacher = through(student["head"], self.projected(self.to_student, states))
        of_student = through(teacher["head"], self.projected(self.to_teacher, student["embedding"]))
        target = (
            batch["label"]
            if "label" in batch
            else torch.full(logits.shape[:-1], UNLABELLED, device=logits.device)
        )
        return dskd_loss(
            student["logits"],
            logits,
            of_teacher,
            of_student,
            target,
            self.temperature,
            self.divergence,
            "none",
        )


def _alone(span: Tensor) -> Tensor:
    """(N, T): whether a position is all of its span."""
    return span_ends(span) & (span != F.pad(span[:, :-1], (1, 0), value=-1))
