"""Refined logits: the teacher's confidence is given to the label, and only classes that it puts below the label are correlated."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import (
    Batch,
    Card,
    LabelObjective,
    NonNegative,
    Positive,
    drop_unlabelled_gradient,
    full,
)
from instil.functional.divergences import expectation, kl_divergence, log_two
from instil.functional.logits import (
    apply_reduction,
    require_class_target,
    require_same_logits,
    without_target,
)
from instil.objectives.bases.logit_objective import LogitObjective


def rld_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    reduction: str = "mean",
) -> Tensor:
    """T² (alpha sample confidence + beta masked correlation) (Sun et al. 2025).

    Sample confidence: KL of (top class of the teacher, the rest) from (label of the student, the rest). Masked correlation: KL among the classes
    whose teacher logit is below the label's; 0 where there is none. Logits (..., C), target (...) give (...) for reduction ``none``; -100 gives 0.
    Raises ValueError for one class and where shapes do not fit.
    """
    require_same_logits(student, teacher, classes=2)
    require_class_target(student, target)
    student, teacher = drop_unlabelled_gradient(target, student, teacher)
    student, teacher = full(student) / temperature, full(teacher) / temperature
    confidence = kl_divergence(
        log_two(*without_target(teacher, teacher.argmax(-1))),
        log_two(*without_target(student, target)),
    )
    label = teacher.gather(-1, target.clamp_min(0).unsqueeze(-1))
    # A class that the teacher finds impossible carries none of its probability: it is not enough
    # for a correlation.
    possible = teacher.masked_fill(teacher == -torch.inf, torch.inf)
    some = possible.amin(-1, keepdim=True) < label
    left_out = teacher >= torch.where(some, label, torch.inf)
    mine, theirs = (torch.where(left_out, -torch.inf, logits) for logits in (student, teacher))
    correlation = -expectation(theirs.softmax(-1), mine.log_softmax(-1), theirs.log_softmax(-1))
    correlation = torch.where(some.squeeze(-1), correlation, 0.0)
    return apply_reduction(
        (alpha * confidence + beta * correlation) * temperature**2, reduction, target
    )


class RLD(LogitObjective, LabelObjective):
    """The teacher refined by the label: no wrong class is taught, and how the others relate is left as it is; logits (..., C).

    ``alpha``: weight of the sample confidence.
    ``beta``: weight of the masked correlation.
    ``temperature``: divides all logits first.
    """

    card = Card(
        "Knowledge Distillation with Refined Logits",
        "https://arxiv.org/abs/2408.07703",
        "ICCV",
        2025,
        source="logits",
        labels=("single",),
        zero_at_match=False,
        deviations="One temperature for both parts, as the authors run it. At a match the sample confidence is left where the teacher's top class "
        "is not the label. The authors' warm-up over 20 epochs is a schedule of the weight.",
        equation=r"T^2 \big( \alpha \mathrm{KL}(b^t \Vert b^s) + \beta \mathrm{KL}(q^t \Vert q^s) \big), \quad b^t = (p^t_k, 1 - p^t_k), k = "
        r"\arg\max_c z^t_c, \quad b^s = (p^s_y, 1 - p^s_y), \quad q = \mathrm{softmax}(z / T) \text{ over } \lbrace c : z^t_c \lt z^t_y \rbrace",
        use="dkd for a teacher that errs on the training samples: classes that it puts above the label are left out, and its confidence is given "
        "to the label. It needs labels and costs no more than kd.",
        pitfalls="Where the teacher ranks the label low, few classes are left in the second term, and none where it ranks it last. Published: "
        "alpha 1 and beta 8 at T = 4 with a rise over 20 epochs on CIFAR-100, beta 0.5 at T = 1 on ImageNet. A noisy label takes a right "
        "teacher's best classes away.",
    )

    def __init__(
        self,
        alpha: NonNegative = 1.0,
        beta: NonNegative = 8.0,
        temperature: Positive = 4.0,
        standardize: bool = False,
    ):
        super().__init__(standardize)
        self.alpha, self.beta, self.temperature = alpha, beta, temperature

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return rld_loss(
            student, teacher, batch["label"], self.alpha, self.beta, self.temperature, "none"
        )
