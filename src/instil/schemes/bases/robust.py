"""Base class of robust distillation: a student that resists attacks learns from a teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from instil.capabilities import Perturbation
from instil.core import (
    Batch,
    Objective,
    Objectives,
    Scheme,
    Teacher,
    Update,
    item_weights,
    mean,
)
from instil.functional.attacks import AttackLoss
from instil.functional.robust_losses import soft_label_loss
from instil.items import replace_invalid
from instil.schemes.bases.attack import (
    Attack,
    class_targets,
    cross_entropy_attack,
    require_attackable,
    robustness_evaluations,
    student_logits,
)
from instil.schemes.bases.robust_options import (
    EPSILON,
    STEP_SIZE,
    AttackSteps,
    Epsilon,
    RobustWeight,
    StepSize,
)


class RobustScheme(Scheme):
    """Base class of robust distillation.

    Each step attacks the current student. The objectives compare both networks on clean images. The
    loss ``robust`` compares the student's outputs for the attacked images, ``batch["attacked"]``,
    with the teacher. Subclasses define the loss that the attack raises (``attack_loss``). The
    report adds the accuracy of every network under attacks on the label within ``epsilon``: FGSM,
    and PGD with 20 steps.
    """

    temperature: float = 1.0

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        weight: RobustWeight = 1.0,
        epsilon: Epsilon = EPSILON,
        step_size: StepSize = STEP_SIZE,
        attack_steps: AttackSteps = 10,
    ):
        super().__init__(student, teacher, objectives)
        self.weight = weight
        self.attack = Attack(epsilon, step_size, attack_steps)

    def build(self, batch: Batch) -> None:
        require_attackable(self, batch)
        self._check_logits(batch)
        super().build(batch)

    def teacher_roles(self) -> set[str]:
        return super().teacher_roles() | {"logits"}

    def _check_logits(self, batch: Batch) -> None:
        if self.teacher is None:
            raise ValueError(f"teacher: {type(self).__name__} needs a teacher")
        student_logits = self.student(batch)["logits"]
        outputs = self.teacher_outputs(batch)
        if "logits" not in outputs:
            raise ValueError(
                f"teacher: {type(self).__name__} needs its logits, got {', '.join(outputs)}."
                " Record a store with the same scheme and store.codec: exact or float16"
            )
        teacher_logits = outputs["logits"]
        is_matrix = student_logits.ndim == 2 and student_logits.shape[1] >= 2
        if not is_matrix or student_logits.shape != teacher_logits.shape:
            raise ValueError(
                f"{type(self).__name__} needs logits (N, C) of both networks, with the same two"
                f" classes or more. Got {tuple(student_logits.shape)} of the student and"
                f" {tuple(teacher_logits.shape)} of the teacher"
            )
        # Called for its check of the labels only.
        class_targets(self, batch, teacher_logits)

    def before_step(self, batch: Batch) -> Batch:
        """Add ``attacked`` and the teacher's outputs for the clean images, ``clean_outputs``."""
        batch = batch | {"clean_outputs": self.teacher_outputs(batch)}
        return self.attack.perturb(self.student, batch, self.attack_loss)

    def attack_loss(self, batch: Batch) -> AttackLoss:
        """Return the loss that the attack raises."""
        raise NotImplementedError

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {**super().counts(batch), "robust": item_weights(batch).sum()}

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)

    def compute_losses(self, batch: Batch) -> Update:
        """Return the objectives' update with the loss ``robust``."""
        student = self.student(batch)
        teacher = batch["clean_outputs"]
        update: Update = self.objectives(student, teacher, batch)
        attacked_logits = student_logits(self.student, batch, batch["attacked"])
        values = self.robust_losses(
            batch,
            replace_invalid(attacked_logits, batch),
            replace_invalid(student["logits"], batch),
            replace_invalid(teacher["logits"], batch),
        )
        update.losses["robust"] = self.weight * mean(values, item_weights(batch))
        return update

    def robust_losses(
        self,
        batch: Batch,
        attacked_logits: Tensor,
        student_logits: Tensor,
        teacher_logits: Tensor,
    ) -> Tensor:
        """Compute the loss ``robust`` of each image.

        Args:
            batch: the batch with ``attacked`` and ``clean_outputs``.
            attacked_logits: student logits (N, C) for the attacked images.
            student_logits: student logits (N, C) for the clean images.
            teacher_logits: teacher logits (N, C) for the clean images.

        Returns:
            One value per image (N,). Default: the KL divergence from the teacher's soft labels.
        """
        return soft_label_loss(attacked_logits, teacher_logits, self.temperature)

    def teacher_logits(self, batch: Batch, image: Tensor, grad: bool = False) -> Tensor:
        """Return the teacher's logits (N, C) for other images."""
        logits: Tensor = self.teacher_outputs(batch | {"image": image}, grad)["logits"]
        return logits

    def label_attack(self, batch: Batch) -> AttackLoss:
        """Return the student's cross-entropy with the label, or with the teacher's class."""
        target = class_targets(self, batch, batch["clean_outputs"]["logits"])
        return cross_entropy_attack(self.student, batch, target)

    @classmethod
    def robustness_evaluations(cls, options: Mapping[str, Any]) -> dict[str, Perturbation]:
        """Return the attacks of the report, within the ``epsilon`` of the recipe."""
        return robustness_evaluations(options)
