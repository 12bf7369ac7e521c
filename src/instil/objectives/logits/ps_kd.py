"""Progressive self-distillation: what the student said an epoch ago softens the label, more and more."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor

from instil.core import Batch, Card, LabelObjective, drop_unlabelled_gradient, full
from instil.functional.divergences import expectation
from instil.functional.logits import apply_reduction, require_class_target, require_same_logits
from instil.objectives.bases.logit_objective import LogitObjective


def ps_kd_loss(
    student: Tensor, past: Tensor, target: Tensor, alpha: float = 0.8, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy with (1 - alpha) of the label and alpha of the past prediction (Kim et al. 2021).

    Logits (..., C) of now and of the past, target (...), give (...) for reduction ``none``; -100 gives 0.
    Raises ValueError for one class and where shapes do not fit.
    """
    require_same_logits(student, past, classes=2)
    require_class_target(student, target)
    student, past = drop_unlabelled_gradient(target, student, past)
    log_probability, before = full(student).log_softmax(-1), full(past).softmax(-1)
    hit = log_probability.gather(-1, target.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    softened = expectation(before, log_probability)
    return apply_reduction(-(1 - alpha) * hit - alpha * softened, reduction, target)


class PSKD(LogitObjective, LabelObjective):
    """The label and the student's own earlier prediction as one soft target; the teacher is the student of the last epoch; logits (..., C).

    ``alpha``: the past's share of the target; the paper raises it evenly from 0 to 0.8, the schedule {start: 0, end: 0.8}.

    This is the whole loss: it holds the label's part. A cross-entropy: at a match the entropies are left.
    """

    card = Card(
        "Self-Knowledge Distillation with Progressive Refinement of Targets",
        "https://arxiv.org/abs/2006.12000",
        "ICCV",
        2021,
        source="logits",
        labels=("single",),
        zero_at_match=False,
        equation=r"-(1 - \alpha) \log p^s_y - \alpha \sum_{c=1}^{C} p^t_c \log p^s_c, \quad p^t \text{ the student's own of the last epoch}",
        use="Self-distillation in the place of label smoothing: the targets soften as the student gets better, and no larger net is needed. The "
        "teacher is the student as it was an epoch ago, at the cost of its forward pass.",
        pitfalls="It stands in place of cross-entropy, do not add both. alpha must start near 0, since early predictions are noise; the default "
        "of 0.8 is where the paper's schedule ends. There is no temperature. With a moving average of the student as the teacher it is a "
        "different method, and the value has the entropies as its floor.",
    )

    def __init__(self, alpha: Annotated[float, Ge(0), Le(1)] = 0.8, standardize: bool = False):
        super().__init__(standardize)
        self.alpha = alpha

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return ps_kd_loss(student, teacher, batch["label"], self.alpha, "none")
