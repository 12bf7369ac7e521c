"""Teacher-free KD: a virtual teacher whose prediction is always the label."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

from annotated_types import Gt, Lt
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, Positive, check_bounds
from instil.functional.divergences import tempered_log_softmax
from instil.functional.logits import apply_reduction, require_class_target, require_classes
from instil.items import Items, drop_unlabelled_gradient


@check_bounds
def tf_kd_loss(
    student_logits: Tensor,
    target: Tensor,
    correct: Annotated[float, Gt(0), Lt(1)] = 0.99,
    temperature: Positive = 20.0,
    soften_student: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """Teacher-free distillation loss with a virtual teacher (Yuan et al. 2020, section 5).

    KL divergence from ``softmax(u / temperature)`` to the student. ``u`` is ``correct`` for the
    label; the other classes share the rest evenly. As in paper and code, the softmax is applied to
    the probabilities ``u`` themselves, not to their logarithms.

    Args:
        student_logits: (..., C).
        target: class indices (...); ``-100`` marks an unlabelled item, whose loss is 0.
        correct: probability of the label, in (0, 1).
        temperature: softmax temperature of the virtual teacher, > 0.
        soften_student: apply the temperature to the student too.
        reduction: ``"mean"`` over the labelled items, or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shape of the target does not fit or there is only one class.

    Example:
        >>> import torch
        >>> tf_kd_loss(torch.eye(3)[:2], torch.tensor([0, 2]))
        tensor(0.1170)
    """
    require_classes(student_logits, 2)
    require_class_target(student_logits, target)
    (student_logits,) = drop_unlabelled_gradient(target, student_logits)
    others = student_logits.shape[-1] - 1
    log_label, log_other = _virtual_teacher(correct, others, temperature)
    log_student = tempered_log_softmax(student_logits, temperature if soften_student else 1.0)
    log_hit = log_student.gather(-1, target.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    rest = others * log_other - (log_student.sum(-1) - log_hit)
    values = math.exp(log_label) * (log_label - log_hit) + math.exp(log_other) * rest
    return apply_reduction(values, reduction, target)


def _virtual_teacher(correct: float, others: int, temperature: float) -> tuple[float, float]:
    """Log-probabilities of the label and of each other class, which are the same for all items."""
    label = correct / temperature
    other = (1 - correct) / others / temperature
    # Subtracting the maximum keeps exp finite at very low temperatures.
    highest = max(label, other)
    total = highest + math.log(math.exp(label - highest) + others * math.exp(other - highest))
    return label - total, other - total


class TfKD(Objective):
    """KD from a virtual teacher, without a network; logits (..., C) and class indices (...)."""

    items = Items(labelled=True)
    card = Card(
        "Revisiting Knowledge Distillation via Label Smoothing Regularization",
        "https://arxiv.org/abs/1909.11723",
        "CVPR",
        2020,
        source="logits",
        finite_logits=True,
        labels=("single",),
        zero_at_match=False,
        published_weight=0.11,
        weight_setting="the authors' code, CIFAR-100, ResNet18, T = 20: 0.1 times 100 on the mean "
        "over 100 classes, and 0.9 for the label loss",
        deviations="In the paper's formula the student is softened too (soften_student=True). "
        "The authors' code, which produced the results, leaves it at temperature 1. It also "
        "averages over the classes and multiplies by up to 100, which is a weight here.",
        equation=r"\mathrm{KL}(\mathrm{softmax}(u / T) \Vert p^s), \quad u_y = a, \quad u_c = "
        r"\frac{1 - a}{C - 1} \text{ for } c \ne y",
        use="A baseline without a teacher: the gain of distillation from soft targets alone. It "
        "needs only labels and costs no more than cross-entropy.",
        pitfalls="The softmax is applied to probabilities: at T = 20 the label's share is only "
        "1.05 times that of another class. The target is almost uniform and carries little "
        "information about the label. Keep the cross-entropy, and expect the effect of strong "
        "label smoothing.",
    )
    needs: ClassVar = {"student": (("logits",),), "teacher": ()}

    def __init__(
        self,
        correct: Annotated[
            float,
            Gt(0),
            Lt(1),
            Doc("virtual teacher's probability of the label; the other classes share the rest"),
        ] = 0.99,
        temperature: Annotated[
            Positive, Doc("softmax temperature of the virtual teacher's probabilities")
        ] = 20.0,
        soften_student: Annotated[
            bool, Doc("apply the temperature to the student's logits too")
        ] = False,
    ):
        super().__init__()
        self.correct = correct
        self.temperature = temperature
        self.soften_student = soften_student

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        return tf_kd_loss(
            student_outputs["logits"],
            batch["label"],
            self.correct,
            self.temperature,
            self.soften_student,
            "none",
        )
