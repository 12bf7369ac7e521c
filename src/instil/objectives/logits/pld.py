"""Plackett-Luce distillation: a ranking loss weighted by the teacher's confidence."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds, to_float32
from instil.functional.logits import apply_reduction, require_class_target, require_same_logits
from instil.functional.plackett_luce import choice_nll
from instil.items import Items, drop_unlabelled_gradient
from instil.objectives.bases.logit_objective import LogitObjective


@check_bounds
def pld_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    temperature: Positive = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Plackett-Luce distillation loss (Bassam et al. 2025, section 4.2).

    Negative log-likelihood of each choice of a ranking under the student, weighted by the teacher's
    probability of the chosen class. The ranking starts with the label; the other classes follow by
    decreasing teacher logit.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        target: class indices (...); ``-100`` marks an unlabelled item, whose loss is 0.
        temperature: softmax temperature of the weights, > 0.
        reduction: ``"mean"`` over the labelled items, or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes do not fit or there is only one class.

    Example:
        >>> import torch
        >>> pld_loss(torch.zeros(2, 3), torch.eye(3)[:2], torch.tensor([0, 2]))
        tensor(0.7060)
    """
    require_same_logits(student_logits, teacher_logits, classes=2)
    require_class_target(student_logits, target)
    student_logits, teacher_logits = drop_unlabelled_gradient(
        target, student_logits, teacher_logits
    )
    teacher_logits = to_float32(teacher_logits)
    # An infinite logit puts the label first; a stable sort keeps ties deterministic.
    scores = teacher_logits.scatter(-1, target.clamp_min(0).unsqueeze(-1), float("inf"))
    order = scores.argsort(dim=-1, descending=True, stable=True)
    confidence = (teacher_logits / temperature).softmax(-1).gather(-1, order)
    values = (confidence * choice_nll(student_logits.gather(-1, order))).sum(-1)
    return apply_reduction(values, reduction, target)


class PLD(LogitObjective):
    """Ranking loss that replaces both cross-entropy and KD; logits (..., C).

    The first choice of the ranking is the cross-entropy of the label. At a match the negative
    log-likelihood of the student's own ranking remains.
    """

    items = Items(labelled=True)
    card = Card(
        "PLD: A Choice-Theoretic List-Wise Knowledge Distillation",
        "https://arxiv.org/abs/2506.12542",
        "NeurIPS",
        2025,
        source="logits",
        labels=("single",),
        zero_at_match=False,
        equation=r"\sum_{k=1}^{C} p^t_{\pi_k} \Big( \log \sum_{l \ge k} e^{z^s_{\pi_l}} - "
        r"z^s_{\pi_k} \Big), \quad \pi_1 = y, \quad z^t_{\pi_2} \ge \dots \ge z^t_{\pi_C}, "
        r"\quad p^t = \mathrm{softmax}(z^t / T)",
        use="One loss instead of cross-entropy and kd, so no weight between them has to be "
        "tuned. The student ranks the classes like the teacher, with the label first. It needs "
        "labels; the cost is one sort of the classes.",
        pitfalls="The label term is weighted by p^t_y: if the teacher is confident of another "
        "class, the label has almost no influence. The loss does not match the student's "
        "confidence, so its calibration differs from the teacher's. A high temperature makes "
        "the weights equal, and the order of the last classes counts, as in listmle.",
    )

    def __init__(
        self,
        temperature: Annotated[
            Positive,
            Doc("softmax temperature of the teacher probabilities that weight the choices"),
        ] = 1.0,
        standardize: Annotated[
            bool, Doc("standardize the logits of each side over the classes first")
        ] = False,
    ):
        super().__init__(standardize)
        self.temperature = temperature

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        return pld_loss(student_logits, teacher_logits, batch["label"], self.temperature, "none")
