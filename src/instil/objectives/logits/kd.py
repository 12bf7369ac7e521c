"""Match the teacher's softened distribution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import Batch, Card, Positive, full
from instil.functional.divergences import softened_kl
from instil.functional.logits import reduced, require_same_logits
from instil.objectives.bases.logit_objective import LogitObjective


def kd_loss(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 2.0,
    scale: bool = True,
    multi_label: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """T² KL(teacher || student) of the softmax at temperature T (Hinton et al. 2014, Eq. 1 and section 2).

    Logits (..., C) give (...) for reduction ``none``. One class, or ``multi_label``: the KL of each class's sigmoid, averaged over the classes.
    ``scale`` is the factor T². Raises ValueError where the shapes differ.
    """
    require_same_logits(student, teacher)
    if multi_label or student.shape[-1] == 1:
        values = (
            _bernoulli_kl(full(teacher) / temperature, full(student) / temperature).sum(-1)
            / student.shape[-1]
        )
    else:
        values = softened_kl(student, teacher, temperature)
    return reduced(values * temperature**2 if scale else values, reduction)


def _bernoulli_kl(teacher: Tensor, student: Tensor) -> Tensor:
    """KL of the sigmoids, class by class: log s(t) - log s(u) - (1 - s(t)) (t - u), since log (1 - s(x)) = log s(x) - x."""
    # Differences of classes that are impossible on both sides are 0 with a finite number, not NaN.
    lowest = torch.finfo(student.dtype).min / 4
    teacher, student = teacher.clamp_min(lowest), student.clamp_min(lowest)
    return (
        F.logsigmoid(teacher) - F.logsigmoid(student) + (-teacher).sigmoid() * (student - teacher)
    )


class KD(LogitObjective):
    """The student's softened distribution follows the teacher's; logits (..., C): classes, pixels or tokens.

    ``temperature``: divides the logits; the higher, the more the small probabilities count.
    ``scale``: the factor T², which keeps the gradient's size.
    ``multi_label``: each class is a yes or no of its own (a single logit always is).
    """

    card = Card(
        "Distilling the Knowledge in a Neural Network",
        "https://arxiv.org/abs/1503.02531",
        "NIPS Workshop",
        2014,
        source="logits",
        deviations="KL is summed over the classes as in the paper; code built on KLDivLoss's default also divides by their number. "
        "Code that leaves out T² is scale=False. The sigmoid form for multi-label and binary outputs is not in the paper.",
        equation=r"T^2 \mathrm{KL}(p^t_T \Vert p^s_T), \quad p_T = \mathrm{softmax}(z / T)",
        use="The baseline, and what to try first: any two nets with the same classes in the same order, with labels or without, also on "
        "unlabelled samples. No parameters, and no more cost than a softmax.",
        pitfalls="A weight from code that averages over the classes must be divided by C, one from code without T² must be divided by T². The "
        "common setting on CIFAR-100 is T = 4 with 0.9 beside 0.1 of the label loss. Weight and temperature depend on each other: at a high T the "
        "loss tends to a squared error of centred logits. The teacher must see the student's augmented input.",
    )

    def __init__(
        self,
        temperature: Positive = 2.0,
        scale: bool = True,
        multi_label: bool = False,
        standardize: bool = False,
    ):
        super().__init__(standardize)
        self.temperature, self.scale, self.multi_label = temperature, scale, multi_label
        if standardize and multi_label:
            raise ValueError(
                "standardize removes the level of the logits, which is what multi_label reads; set one of them"
            )

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return kd_loss(student, teacher, self.temperature, self.scale, self.multi_label, "none")
