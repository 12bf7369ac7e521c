"""IAD-I: the student trusts the teacher as far as the teacher resists the attack."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from instil.core import (
    Batch,
    Card,
    Objective,
    Objectives,
    Teacher,
)
from instil.functional.attacks import AttackLoss
from instil.schemes.bases.attack import class_targets
from instil.schemes.bases.introspection import Introspection
from instil.schemes.bases.robust import RobustScheme
from instil.schemes.bases.robust_options import (
    EPSILON,
    STEP_SIZE,
    AnswersTo,
    AttackSteps,
    Beta,
    Epsilon,
    Partial,
    RobustWeight,
    StepSize,
    Temperature,
    Trusting,
)


class IAD(RobustScheme):
    """Introspective adversarial distillation with a robust teacher (Zhu et al. 2022, IAD-I).

    The attack raises the student's cross-entropy with the label. On the attacked image the student
    learns the teacher's output and its own output for the clean image. The weight of its own output
    is larger, the less probability the teacher under the same attack gives to the label. The
    defaults are those published for CIFAR-10, where the objectives have the weight 1 - ``weight``.
    """

    card = Card(
        "Reliable adversarial distillation with unreliable teachers",
        "https://arxiv.org/abs/2106.04928",
        "ICLR",
        2022,
        source="offline",
        algorithms=("adversarial", "adaptive"),
        labels=("single",),
        equation=r"T^2 \mathrm{KL}(p^t_T(x) \Vert p^s_T(x_{adv})) + "
        r"(1 - A) \mathrm{KL}(p^s(x) \Vert p^s(x_{adv})), \quad A = p^t_y(x_{adv})^\beta",
        use="The teacher resists the attacks on the student only in part. Add the objective "
        "cross_entropy for clean labels.",
        pitfalls="The trust needs the label; without one it is the trust in the teacher's own "
        "class. Every step needs one forward and one backward pass through the student per "
        "attack step, and one more forward pass of the teacher. "
        "The passes on clean and on attacked images both update the running statistics of "
        "BatchNorm, as in the authors' code.",
        deviations="The paper multiplies the teacher's term by the trust; the authors' code does "
        "not (option partial). The student is attacked in evaluation mode; the authors' code "
        "attacks it in training mode. An image without a label is attacked at the teacher's class.",
        tags=("changed_inputs",),
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        weight: RobustWeight = 1.0,
        temperature: Temperature = 1.0,
        beta: Beta = 0.1,
        answers_to: AnswersTo = "clean",
        partial: Partial = False,
        trusting: Trusting = 0.3,
        epsilon: Epsilon = EPSILON,
        step_size: StepSize = STEP_SIZE,
        attack_steps: AttackSteps = 10,
    ):
        super().__init__(student, teacher, objectives, weight, epsilon, step_size, attack_steps)
        self.temperature = temperature
        self.beta = beta
        self.answers_to = answers_to
        self.partial = partial
        self.trusting = trusting

    def attack_loss(self, batch: Batch) -> AttackLoss:
        return self.label_attack(batch)

    def robust_losses(
        self,
        batch: Batch,
        attacked_logits: Tensor,
        student_logits: Tensor,
        teacher_logits: Tensor,
    ) -> Tensor:
        introspection = Introspection(
            self.temperature, self.beta, self.answers_to, self.partial, self.trusting
        )
        return introspection.losses(
            batch,
            attacked_logits,
            student_logits,
            teacher_logits,
            self.teacher_logits(batch, batch["attacked"]),
            # The class of an unlabelled image comes from the clean image, the trust from the
            # attacked one.
            class_targets(self, batch, teacher_logits),
        )
