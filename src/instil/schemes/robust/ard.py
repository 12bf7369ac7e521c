"""A robust student from a robust teacher: on attacked images it says what the teacher says of the images as they were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from annotated_types import Ge
from torch import nn

from instil.core import Batch, Card, NonNegative, Objective, Objectives, Positive, Teacher
from instil.functional.attacks import AttackLoss
from instil.schemes.bases.robust import EPSILON, STEP_SIZE, RobustScheme


class ARD(RobustScheme):
    """The attack raises the student's cross-entropy with the label; the teacher's softened answer to the clean image is learnt from the attacked one
    (Goldblum et al. 2020). Defaults as published for CIFAR-10, where the objectives have the weight 1 - ``weight``.

    ``temperature``: divides the logits of the loss ``robust_losses``, with its square as a factor.
    """

    card = Card(
        "Adversarially robust distillation",
        "https://arxiv.org/abs/1905.09747",
        "AAAI",
        2020,
        source="offline",
        algorithms=("adversarial",),
        labels=("single",),
        equation=r"\alpha T^2 \mathrm{KL}(p^t_T(x) \Vert p^s_T(x_{adv})) + (1 - \alpha) \mathrm{CE}(p^s(x), y), \quad "
        r"x_{adv} = \arg\max_{\Vert x' - x \Vert_\infty \le \epsilon} \mathrm{CE}(p^s(x'), y)",
        use="A small student that must withstand attacks, and a teacher that does; its second term is the objective cross_entropy.",
        pitfalls="A teacher that is not robust itself passes little robustness on. Every step costs as many passes forth and back through the "
        "student as the attack has steps.",
        deviations="The KL is summed over the classes, where the authors' code also divides by their number; the student is attacked in eval mode, "
        "theirs in train mode; an image without a label is attacked at the teacher's class.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        weight: NonNegative = 1.0,
        temperature: Positive = 30.0,
        epsilon: NonNegative = EPSILON,
        step_size: Positive = STEP_SIZE,
        attack_steps: Annotated[int, Ge(1)] = 10,
    ):
        super().__init__(student, teacher, objectives, weight, epsilon, step_size, attack_steps)
        self.temperature = temperature

    def attack_loss(self, batch: Batch) -> AttackLoss:
        return self.label_attack(batch)
