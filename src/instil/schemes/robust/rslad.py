"""RSLAD: the teacher's soft labels replace hard labels in the loss and in the attack."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from instil.core import Batch, Card, Objective, Objectives, Teacher
from instil.functional.attacks import AttackLoss
from instil.functional.robust_losses import soft_label_loss
from instil.schemes.bases.attack import student_logits
from instil.schemes.bases.robust import RobustScheme
from instil.schemes.bases.robust_options import (
    EPSILON,
    STEP_SIZE,
    AttackSteps,
    Epsilon,
    RobustWeight,
    StepSize,
)


class RSLAD(RobustScheme):
    """Robust soft label adversarial distillation (Zi et al. 2021).

    The attack raises the divergence of the student from the teacher's output for the clean image;
    the student then learns that output from the attacked image. The defaults are those published,
    with kd at temperature 1 and weight 1/6 as the only objective. The scheme needs no labels.
    """

    card = Card(
        "Revisiting adversarial robustness distillation: robust soft labels make student better",
        "https://arxiv.org/abs/2108.07969",
        "ICCV",
        2021,
        source="offline",
        algorithms=("adversarial",),
        labels=("single",),
        equation=r"\tfrac{5}{6} \mathrm{KL}(p^t(x) \Vert p^s(x_{adv})) + "
        r"\tfrac{1}{6} \mathrm{KL}(p^t(x) \Vert p^s(x)), \quad "
        r"x_{adv} = \arg\max_{\Vert x' - x \Vert_\infty \le \epsilon} "
        r"\mathrm{KL}(p^t(x) \Vert p^s(x'))",
        use="You have a robust teacher, and images with or without labels.",
        pitfalls="The student learns only the teacher's output for clean images, so the teacher's "
        "soft labels must be robust. Every step needs one forward and one backward pass through "
        "the student per attack step. "
        "The passes on clean and on attacked images both update the running statistics of "
        "BatchNorm, as in the authors' code.",
        deviations="The KL divergence is summed over the classes; the authors' code takes the mean "
        "over them (ten times that for 100 classes) and adds 1e-5 inside a logarithm. The attack "
        "starts at a random point of the box; the authors' code starts at normal noise of scale "
        "0.001.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        weight: RobustWeight = 5 / 6,
        epsilon: Epsilon = EPSILON,
        step_size: StepSize = STEP_SIZE,
        attack_steps: AttackSteps = 10,
    ):
        super().__init__(student, teacher, objectives, weight, epsilon, step_size, attack_steps)

    def attack_loss(self, batch: Batch) -> AttackLoss:
        teacher_logits = batch["clean_outputs"]["logits"]
        return lambda image: soft_label_loss(
            student_logits(self.student, batch, image), teacher_logits
        )
