"""The teacher's soft labels take the place of hard ones everywhere, in the attack too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from annotated_types import Ge
from torch import nn

from instil.core import Batch, Card, NonNegative, Objective, Objectives, Positive, Teacher
from instil.functional.attacks import AttackLoss
from instil.schemes.bases.robust import EPSILON, STEP_SIZE, RobustScheme, soft_label_loss


class RSLAD(RobustScheme):
    """The attack drives the student away from the teacher's answer to the clean image, which is then learnt from the attacked one
    (Zi et al. 2021). Defaults as published, where the one objective is kd at temperature 1 with the weight 1/6; no label is read.
    """

    card = Card(
        "Revisiting adversarial robustness distillation: robust soft labels make student better",
        "https://arxiv.org/abs/2108.07969",
        "ICCV",
        2021,
        source="offline",
        algorithms=("adversarial",),
        labels=("single",),
        equation=r"\tfrac{5}{6} \mathrm{KL}(p^t(x) \Vert p^s(x_{adv})) + \tfrac{1}{6} \mathrm{KL}(p^t(x) \Vert p^s(x)), \quad "
        r"x_{adv} = \arg\max_{\Vert x' - x \Vert_\infty \le \epsilon} \mathrm{KL}(p^t(x) \Vert p^s(x'))",
        use="A robust teacher, and images with labels or without.",
        pitfalls="All that the student learns is the teacher's answer to clean images: it needs a teacher whose soft labels are robust. Every step "
        "costs as many passes forth and back through the student as the attack has steps.",
        deviations="The KL is summed over the classes, where the authors' code takes the mean over them (ten times that for 100 classes) and adds "
        "1e-5 inside a logarithm; the attack starts anywhere in the box, theirs at normal noise of 0.001.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        weight: NonNegative = 5 / 6,
        epsilon: NonNegative = EPSILON,
        step_size: Positive = STEP_SIZE,
        attack_steps: Annotated[int, Ge(1)] = 10,
    ):
        super().__init__(student, teacher, objectives, weight, epsilon, step_size, attack_steps)

    def attack_loss(self, batch: Batch) -> AttackLoss:
        teacher = batch["taught"]["logits"]
        return lambda image: soft_label_loss(self.student_logits(batch, image), teacher)
