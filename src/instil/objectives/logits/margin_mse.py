"""Squared error of score differences between the relevant passage and the others."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import Batch, Card, to_float32
from instil.functional.logits import apply_reduction, require_same_logits
from instil.functional.ranking import is_candidate
from instil.items import Items
from instil.objectives.bases.logit_objective import LogitObjective


def margin_mse_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Margin mean squared error (Hofstätter et al. 2020, Eq. 8).

    Mean over the other candidates of ``((s_pos - s_neg) - (t_pos - t_neg)) ** 2``.

    Args:
        student_logits: scores (..., D).
        teacher_logits: scores (..., D).
        target: grades (..., D); the first candidate with the highest grade is the positive one.
            Without grades, or for a query whose grades are all equal, it is the teacher's best.
        reduction: ``"mean"`` or ``"none"`` (one value per query).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ or there is only one candidate.

    Example:
        >>> margin_mse_loss(torch.zeros(1, 2), torch.tensor([[3.0, 1.0]]))
        tensor(4.)
    """
    require_same_logits(student_logits, teacher_logits, classes=2)
    student, teacher = to_float32(student_logits), to_float32(teacher_logits)
    is_counted = is_candidate(student.detach()) & is_candidate(teacher)
    positive = teacher.masked_fill(~is_counted, -torch.inf).argmax(-1, keepdim=True)
    if target is not None and target.shape == student.shape:
        grades = target.masked_fill(~is_counted, -torch.inf)
        is_graded = grades.amax(-1, keepdim=True) > target.amin(-1, keepdim=True)
        positive = torch.where(is_graded, grades.argmax(-1, keepdim=True), positive)
    # Scores of -inf are replaced first: their differences have no finite gradient.
    student = student.where(is_counted, 0.0)
    teacher = teacher.where(is_counted, 0.0)
    student = student.gather(-1, positive) - student
    teacher = teacher.gather(-1, positive) - teacher
    errors = (student - teacher).square().masked_fill(~is_counted, 0.0)
    # The error of the positive candidate with itself is 0 and does not count.
    num_others = (is_counted.sum(-1) - 1).clamp_min(1)
    return apply_reduction(errors.sum(-1) / num_others, reduction)


class MarginMSE(LogitObjective):
    """Squared error of the score differences between the relevant passage and each other one.

    Reads the scores (N, D) of D candidates, and their grades if a query has any.
    """

    items = Items(per_sample=True)
    card = Card(
        "Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge Distillation",
        "https://arxiv.org/abs/2010.02666",
        "arXiv",
        2020,
        source="logits",
        tasks=("ranking", "recommendation"),
        labels=("graded",),
        deviations="The paper has one negative passage per query; here the mean over all others "
        "is used. A query without grades takes the teacher's best passage as the relevant one.",
        equation=r"\frac{1}{D - 1} \sum_{d \ne +} \big( (s^s_+ - s^s_d) - (s^t_+ - s^t_d) "
        r"\big)^2",
        use="To train a bi-encoder with the scores of a cross-encoder. The scores of the two "
        "architectures have different ranges, and only their differences are matched.",
        pitfalls="Scores of the student that are cosines have a fixed range. With teacher margins "
        "outside it the loss cannot reach 0; here the task multiplies cosines by 20. Teacher "
        "scores after a sigmoid lie in [0, 1] and make the margins too small: use logits.",
    )

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        return margin_mse_loss(student_logits, teacher_logits, batch.get("label"), "none")
