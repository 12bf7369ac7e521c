"""Correct the teacher where it is wrong before the student learns from it."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from instil.core import (
    Batch,
    Card,
    LabelObjective,
    Positive,
    closest,
    drop_unlabelled_gradient,
    full,
)
from instil.functional.divergences import kl_from
from instil.functional.logits import apply_reduction, require_class_target, require_same_logits
from instil.objectives.bases.logit_objective import LogitObjective

CORRECTIONS = ("shift", "smooth")


def probability_shift_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    temperature: float = 4.0,
    correction: str = "shift",
    smoothing: float = 0.1,
    reduction: str = "mean",
) -> Tensor:
    """T² KL(corrected teacher || student) of the softmax at temperature T (knowledge adjustment, Wen et al. 2021).

    Where the teacher's likeliest class is not the label, ``shift`` exchanges the probabilities of the two, ``smooth`` takes the label with
    ``smoothing`` spread over all classes. Logits (..., C), target (...) give (...) for reduction ``none``; -100 gives 0.
    Raises ValueError for one class, where shapes do not fit, and for another correction.
    """
    require_same_logits(student, teacher, classes=2)
    require_class_target(student, target)
    student, teacher = drop_unlabelled_gradient(target, student, teacher)
    if correction not in CORRECTIONS:
        raise ValueError(
            f"correction: no correction '{correction}'; {closest(correction, CORRECTIONS)}"
        )
    teacher, label = full(teacher), target.clamp_min(0).unsqueeze(-1)
    highest, top = teacher.max(-1, keepdim=True)
    if correction == "shift":
        exchanged = teacher.scatter(-1, top, teacher.gather(-1, label)).scatter(-1, label, highest)
        log_teacher = (exchanged / temperature).log_softmax(-1)
    else:
        share = smoothing / teacher.shape[-1]
        smooth = torch.full_like(teacher, share).scatter(-1, label, 1 - smoothing + share).log()
        log_teacher = torch.where(top == label, (teacher / temperature).log_softmax(-1), smooth)
    values = kl_from(log_teacher, student, temperature)
    return apply_reduction(values * temperature**2, reduction, target)


class ProbabilityShift(LogitObjective, LabelObjective):
    """KD from a teacher whose wrong answers are put right, and whose right ones are left alone; logits (..., C).

    ``temperature``: divides the logits.
    ``correction``: exchange the probabilities of the label and of the class taken for it (PS), or take the smoothed label instead (LSR).
    ``smoothing``: the share of the smoothed label that is spread over all classes.

    At a match the loss is zero only where the teacher is right.
    """

    card = Card(
        "Preparing Lessons: Improve Knowledge Distillation with Better Supervision",
        "https://arxiv.org/abs/1911.07471",
        "Neurocomputing",
        2021,
        source="logits",
        labels=("single",),
        zero_at_match=False,
        deviations="Its dynamic temperature is not part of this. The authors' code and the paper's settings were not at hand: the "
        "defaults of temperature and smoothing are those of kd and of label_smoothing. A port takes 20, and 0.9 for the label with the rest over "
        "the other classes.",
        equation=r"T^2 \mathrm{KL}(\mathrm{softmax}(\tilde{z}^t / T) \Vert p^s_T), \quad \tilde{z}^t = z^t \text{ with } z^t_y \text{ and } \max_c "
        r"z^t_c \text{ exchanged}",
        use="kd from a teacher that errs on the training samples: shift keeps its distribution and only puts the label on top, smooth drops what "
        "it says of the samples it gets wrong. It needs labels and costs no more than kd.",
        pitfalls="A noisy label overrules a teacher that was right. A teacher that fits its training set is corrected almost nowhere, and this is "
        "kd. A port exchanges the two likeliest classes instead, whether or not the label is one of them.",
    )

    def __init__(
        self,
        temperature: Positive = 4.0,
        correction: Literal["shift", "smooth"] = "shift",
        smoothing: Annotated[float, Gt(0), Lt(1)] = 0.1,
        standardize: bool = False,
    ):
        super().__init__(standardize)
        self.temperature, self.correction, self.smoothing = temperature, correction, smoothing

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return probability_shift_loss(
            student,
            teacher,
            batch["label"],
            self.temperature,
            self.correction,
            self.smoothing,
            "none",
        )
