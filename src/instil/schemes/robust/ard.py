"""ARD: on attacked images the student learns the teacher's output for the clean images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from torch import nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Objectives, Positive, Teacher
from instil.functional.attacks import AttackLoss
from instil.schemes.bases.robust import RobustScheme
from instil.schemes.bases.robust_options import (
    EPSILON,
    STEP_SIZE,
    AttackSteps,
    Epsilon,
    RobustWeight,
    StepSize,
)


class ARD(RobustScheme):
    """Adversarially robust distillation (Goldblum et al. 2020).

    The attack raises the student's cross-entropy with the label. The student learns the teacher's
    softened output for the clean image from the attacked one. The defaults are those published for
    CIFAR-10, where the objectives have the weight 1 - ``weight``.
    """

    card = Card(
        "Adversarially robust distillation",
        "https://arxiv.org/abs/1905.09747",
        "AAAI",
        2020,
        source="offline",
        algorithms=("adversarial",),
        labels=("single",),
        equation=r"\alpha T^2 \mathrm{KL}(p^t_T(x) \Vert p^s_T(x_{adv})) + "
        r"(1 - \alpha) \mathrm{CE}(p^s(x), y), \quad "
        r"x_{adv} = \arg\max_{\Vert x' - x \Vert_\infty \le \epsilon} \mathrm{CE}(p^s(x'), y)",
        use="You need a small robust student and have a robust teacher. The second term of the "
        "equation is the objective cross_entropy.",
        pitfalls="A teacher that is not robust transfers little robustness. Every step needs "
        "one forward and one backward pass through the student per attack step. "
        "The passes on clean and on attacked images both update the running statistics of "
        "BatchNorm, as in the authors' code.",
        deviations="The KL divergence is summed over the classes; the authors' code also divides "
        "by their number. The student is attacked in evaluation mode; the authors' code attacks "
        "it in training mode. An image without a label is attacked at the teacher's class.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        weight: RobustWeight = 1.0,
        temperature: Annotated[
            Positive,
            Doc("softmax temperature of the loss ``robust``, which has its square as factor"),
        ] = 30.0,
        epsilon: Epsilon = EPSILON,
        step_size: StepSize = STEP_SIZE,
        attack_steps: AttackSteps = 10,
    ):
        super().__init__(student, teacher, objectives, weight, epsilon, step_size, attack_steps)
        self.temperature = temperature

    def attack_loss(self, batch: Batch) -> AttackLoss:
        return self.label_attack(batch)
