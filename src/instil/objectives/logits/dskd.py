"""Dual-space distillation: compare two language models through each other's output head."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import UNLABELLED, Batch, Card, Outputs, Positive, check_bounds
from instil.functional.logits import apply_reduction
from instil.functional.tokens.dual_space import (
    DualSpaceDivergence,
    frozen_head_logits,
    student_space,
    teacher_space,
)
from instil.functional.tokens.spans import (
    aligned_positions,
    gather_positions,
    require_same_positions,
    span_ends,
)
from instil.objectives.bases.dual_space_objective import DualSpace


@check_bounds
def dskd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    teacher_in_student: Tensor,
    student_in_teacher: Tensor,
    target: Tensor,
    temperature: Positive = 2.0,
    divergence: DualSpaceDivergence = "forward_kl",
    reduction: str = "mean",
) -> Tensor:
    """Dual-space knowledge distillation loss (Zhang et al. 2024, Eq. 10).

    Two terms in the student's space: the cross-entropy of the projected teacher, and the divergence
    of the student from it. One term in the teacher's space: the KL divergence of the projected
    student.

    Args:
        student_logits: (..., V).
        teacher_logits: (..., V'), of the same positions.
        teacher_in_student: (..., V), the student's head applied to the teacher's projected states.
        student_in_teacher: (..., V'), the teacher's head applied to the student's projected states.
        target: class indices (...); ``-100`` marks a position without a label, whose
            cross-entropy is 0.
        temperature: softmax temperature of the divergences, > 0.
        divergence: divergence in the student's space.
        reduction: ``"mean"`` or ``"none"`` (one value per position).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> import torch
        >>> student_logits, teacher_logits = torch.zeros(2, 3), torch.eye(4)[:2]
        >>> target = torch.tensor([0, 1])
        >>> dskd_loss(student_logits, teacher_logits, torch.eye(3)[:2], torch.zeros(2, 4), target)
        tensor(0.6086)
    """
    label_loss, student_divergence = student_space(
        student_logits, teacher_in_student, target, temperature, divergence
    )
    teacher_divergence = teacher_space(teacher_logits, student_in_teacher, temperature)
    return apply_reduction(label_loss + student_divergence + teacher_divergence, reduction)


class DSKD(DualSpace):
    """Student and teacher compared in both spaces, through a projection and the other side's head.

    Logits are (..., V) and (..., V'). With a teacher of another tokenizer (``teacher.tokenizer``)
    only tokens that cover the same bytes in both tokenizers count.
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
        tags=("aligned_tokens",),
        published_weight=1.0,
        weight_setting="the authors' code, GPT-2, T = 2: 0.5 for both losses",
        deviations="Tokens of two tokenizers are aligned exactly, by bytes (as in the authors' "
        "second version, arXiv 2504.11426); their first method is dskd_cma. There is no factor T², "
        "as in their code.",
        equation=r"\mathrm{CE}\!\left(y, p^{t \to s}\right) + D\!\left(\mathrm{sg}\, p^{t \to s}, "
        r"p^s\right) + \mathrm{KL}\!\left(p^t \,\|\, p^{s \to t}\right)",
        use="A teacher of another width or vocabulary whose head is accessible. Both distributions "
        "come from one head, so they can match.",
        pitfalls="The student learns from projected logits that are themselves learned, so the "
        "first steps transfer little. If the tokenizers rarely share a whole token, few positions "
        "count; uld uses all of them.",
    )

    def weight(self, batch: Batch) -> Tensor:
        weight = super().weight(batch)
        if "teacher_span" not in batch:
            return weight
        student_span = batch["span"]
        teacher_span = batch["teacher_span"]
        positions = aligned_positions(student_span, teacher_span)
        is_single = _is_whole_span(teacher_span).gather(1, positions)
        token_weight = weight if weight.ndim == 2 else weight[:, None]
        return token_weight * (_is_whole_span(student_span) & is_single)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        teacher_states = teacher["embedding"]
        teacher_logits = teacher["logits"]
        if "teacher_span" in batch:
            positions = aligned_positions(batch["span"], batch["teacher_span"])
            teacher_states = gather_positions(teacher_states, positions)
            teacher_logits = gather_positions(teacher_logits, positions)
        require_same_positions(student["logits"], teacher_logits)
        teacher_projected = self.projected(self.to_student, teacher_states)
        student_projected = self.projected(self.to_teacher, student["embedding"])
        target = batch.get("label")
        if target is None:
            target = torch.full(teacher_logits.shape[:-1], UNLABELLED, device=teacher_logits.device)
        return dskd_loss(
            student["logits"],
            teacher_logits,
            frozen_head_logits(student["head"], teacher_projected),
            frozen_head_logits(teacher["head"], student_projected),
            target,
            self.temperature,
            self.divergence,
            "none",
        )


def _is_whole_span(span: Tensor) -> Tensor:
    """Whether a position is the only one of its span, (N, T)."""
    return span_ends(span) & (span != F.pad(span[:, :-1], (1, 0), value=-1))
