"""Teacher-free distillation: a virtual teacher that is always right and nearly sure, softened."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

from annotated_types import Gt, Lt
from torch import Tensor

from instil.core import Batch, Card, LabelObjective, Outputs, Positive, drop_unlabelled_gradient
from instil.functional.divergences import tempered_log_softmax
from instil.functional.logits import apply_reduction, require_class_target, require_classes


def tf_kd_loss(
    student: Tensor,
    target: Tensor,
    correct: float = 0.99,
    temperature: float = 20.0,
    soften_student: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """KL(softmax(u / T) || student), u = ``correct`` at the label and the rest shared evenly (Yuan et al. 2020, section 5).

    Logits (..., C), target (...) give (...) for reduction ``none``; -100 gives 0. As in paper and code the softmax is of the probabilities u
    themselves, not of their logarithms. Raises ValueError for one class and where the target's shape does not fit.
    """
    require_classes(student, 2)
    require_class_target(student, target)
    (student,) = drop_unlabelled_gradient(target, student)
    others = student.shape[-1] - 1
    label, other = correct / temperature, (1 - correct) / others / temperature
    total = max(label, other) + math.log(
        math.exp(label - max(label, other)) + others * math.exp(other - max(label, other))
    )
    label, other = label - total, other - total  # log-probabilities, the same for all items
    log_probability = tempered_log_softmax(student, temperature if soften_student else 1.0)
    hit = log_probability.gather(-1, target.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    rest = others * other - (log_probability.sum(-1) - hit)
    return apply_reduction(
        math.exp(label) * (label - hit) + math.exp(other) * rest, reduction, target
    )


class TfKD(LabelObjective):
    """Distillation without a teacher, from a hand-made one; logits (..., C), class indices (...).

    ``correct``: the virtual teacher's probability of the label; the other classes share the rest.
    ``temperature``: divides the virtual teacher's probabilities before their softmax.
    ``soften_student``: divides the student's logits by the temperature too.
    """

    card = Card(
        "Revisiting Knowledge Distillation via Label Smoothing Regularization",
        "https://arxiv.org/abs/1909.11723",
        "CVPR",
        2020,
        source="logits",
        finite_logits=True,
        labels=("single",),
        zero_at_match=False,
        deviations="The paper writes the student softened too (soften_student=True); the authors' code, which gave the results, leaves it at "
        "temperature 1, averages over the classes too, and multiplies by up to 100, which is a weight here.",
        equation=r"\mathrm{KL}(\mathrm{softmax}(u / T) \Vert p^s), \quad u_y = a, \quad u_c = \frac{1 - a}{C - 1} \text{ for } c \ne y",
        use="A baseline without a teacher: what distillation gains from soft targets alone. It needs nothing but labels and costs no more than "
        "cross-entropy.",
        pitfalls="The softmax is of probabilities: at T = 20 the label's share is only 1.05 times that of another class, so the target is almost "
        "uniform and says hardly anything of the label. Keep cross-entropy beside it, and expect the effect of strong label smoothing.",
    )
    needs: ClassVar = {"student": (("logits",),), "teacher": ()}

    def __init__(
        self,
        correct: Annotated[float, Gt(0), Lt(1)] = 0.99,
        temperature: Positive = 20.0,
        soften_student: bool = False,
    ):
        super().__init__()
        self.correct, self.temperature, self.soften_student = correct, temperature, soften_student

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return tf_kd_loss(
            student["logits"],
            batch["label"],
            self.correct,
            self.temperature,
            self.soften_student,
            "none",
        )
