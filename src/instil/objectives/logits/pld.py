"""Plackett-Luce distillation: the label first, then the teacher's order, each choice as weighty as the teacher is confident in it."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Card, LabelObjective, Positive, drop_unlabelled_gradient, full
from instil.functional.logits import apply_reduction, require_class_target, require_same_logits
from instil.functional.plackett_luce import choice_nll
from instil.objectives.bases.logit_objective import LogitObjective


def pld_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    temperature: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Surprise of every choice of the teacher-optimal ranking, weighted by the teacher's probability of it (Bassam et al. 2025, section 4.2).

    The ranking is the label, then the other classes in descending order of the teacher; ``temperature`` softens the weights only.
    Logits (..., C), target (...) give (...) for reduction ``none``; -100 gives 0. Raises ValueError for one class and where shapes do not fit.
    """
    require_same_logits(student, teacher, classes=2)
    require_class_target(student, target)
    student, teacher = drop_unlabelled_gradient(target, student, teacher)
    teacher = full(teacher)
    order = teacher.scatter(-1, target.clamp_min(0).unsqueeze(-1), float("inf")).argsort(
        dim=-1, descending=True, stable=True
    )
    confidence = (teacher / temperature).softmax(-1).gather(-1, order)
    return apply_reduction(
        (confidence * choice_nll(student.gather(-1, order))).sum(-1), reduction, target
    )


class PLD(LogitObjective, LabelObjective):
    """A whole ranking of the classes instead of cross-entropy and KD; logits (..., C).

    ``temperature``: divides the teacher's logits where they give the weights of the choices.

    This is the whole loss: its first choice is the label's cross-entropy. At a match the surprise of the student's own order is left.
    """

    card = Card(
        "PLD: A Choice-Theoretic List-Wise Knowledge Distillation",
        "https://arxiv.org/abs/2506.12542",
        "NeurIPS",
        2025,
        source="logits",
        labels=("single",),
        zero_at_match=False,
        equation=r"\sum_{k=1}^{C} p^t_{\pi_k} \Big( \log \sum_{l \ge k} e^{z^s_{\pi_l}} - z^s_{\pi_k} \Big), \quad \pi_1 = y, \quad z^t_{\pi_2} "
        r"\ge \dots \ge z^t_{\pi_C}, \quad p^t = \mathrm{softmax}(z^t / T)",
        use="One loss in place of cross-entropy and kd, so that no weight between them has to be tuned: the student ranks the classes as the "
        "teacher does, with the label first. It needs labels; the cost is a sort of the classes.",
        pitfalls="The label's term is weighed by p^t_y: where the teacher is sure of another class, the label is hardly taught. The student's "
        "confidence is not matched, so its calibration is not the teacher's. At a high temperature the weights even out and the order of the last "
        "classes counts, as in listmle.",
    )

    def __init__(self, temperature: Positive = 1.0, standardize: bool = False):
        super().__init__(standardize)
        self.temperature = temperature

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return pld_loss(student, teacher, batch["label"], self.temperature, "none")
