"""IAD-II: a partly trusted robust teacher, and a second teacher trained on clean images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Objective, Objectives, Outputs, Teacher
from instil.functional.attacks import AttackLoss
from instil.functional.robust_losses import soft_label_loss
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


class IADII(RobustScheme):
    """Introspective adversarial distillation with two teachers (Zhu et al. 2022, IAD-II).

    IAD with the first of two teachers, the robust one. In addition the student learns the outputs
    of the second teacher for the attacked images, as in AKD. The defaults are those of the authors'
    code, where the cross-entropy, on attacked images, has the remaining weight 1/4.
    """

    card = Card(
        "Reliable adversarial distillation with unreliable teachers",
        "https://arxiv.org/abs/2106.04928",
        "ICLR",
        2022,
        source="offline",
        algorithms=("adversarial", "adaptive", "multi-teacher"),
        labels=("single",),
        equation=r"A\, T^2 \mathrm{KL}(p^{r}_T(x_{adv}) \Vert p^s_T(x_{adv})) + "
        r"(1 - A) \mathrm{KL}(p^s(x) \Vert p^s(x_{adv})) + "
        r"\tfrac{1}{2} T^2 \mathrm{KL}(p^{n}_T(x_{adv}) \Vert p^s_T(x_{adv})), "
        r"\quad A = p^{r}_y(x_{adv})^\beta",
        use="You have a robust teacher and one trained on clean images, with the same classes. The "
        "second teacher preserves the accuracy on clean images.",
        pitfalls="The order of the teachers counts: the robust one comes first. The second teacher "
        "is wrong on many attacked images, and the student learns its errors; too large a weight "
        "costs robustness. "
        "The passes on clean and on attacked images both update the running statistics of "
        "BatchNorm, as in the authors' code.",
        deviations="Written from the authors' code, where both teachers see the attacked images "
        "and the first one's term is multiplied by the trust; not compared with the paper's text. "
        "There the cross-entropy is computed on attacked images, here the objective is computed on "
        "clean ones. The student is attacked in evaluation mode, in their code in training mode.",
        tags=("changed_inputs",),
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        weight: RobustWeight = 0.5,
        natural: Annotated[
            NonNegative, Doc("weight of the second teacher's term, relative to ``weight``")
        ] = 0.5,
        temperature: Temperature = 1.0,
        beta: Beta = 0.1,
        answers_to: AnswersTo = "attacked",
        partial: Partial = True,
        trusting: Trusting = 0.2,
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
        self.natural = natural

    def teacher_outputs(self, batch: Batch, grad: bool = False) -> Outputs:
        """Return the robust teacher's outputs, with those of both teachers as ``members``."""
        outputs = super().teacher_outputs(batch, grad)
        members = outputs.get("members", ())
        if len(members) != 2:
            raise ValueError(
                "teacher: IADII needs two teachers, a robust one and then one trained on clean"
                f" images, got {len(members) or 1}"
            )
        robust_outputs: Outputs = members[0]
        # The roles of the robust teacher replace those of the ensemble.
        return outputs | robust_outputs

    def attack_loss(self, batch: Batch) -> AttackLoss:
        return self.label_attack(batch)

    def robust_losses(
        self,
        batch: Batch,
        attacked_logits: Tensor,
        student_logits: Tensor,
        teacher_logits: Tensor,
    ) -> Tensor:
        outputs = self.teacher_outputs(batch | {"image": batch["attacked"]})
        natural_logits = outputs["members"][1]["logits"]
        natural_terms = soft_label_loss(attacked_logits, natural_logits, self.temperature)
        introspection = Introspection(
            self.temperature, self.beta, self.answers_to, self.partial, self.trusting
        )
        robust_terms = introspection.losses(
            batch,
            attacked_logits,
            student_logits,
            teacher_logits,
            outputs["logits"],
            class_targets(self, batch, teacher_logits),
        )
        return self.natural * natural_terms + robust_terms
