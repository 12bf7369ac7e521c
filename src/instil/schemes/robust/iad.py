"""IAD-I: the student trusts the teacher as far as the teacher resists the attack."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from instil.core import (
    Batch,
    Card,
    Objective,
    Objectives,
    Outputs,
    Teacher,
    to_float32,
)
from instil.functional.attacks import AttackLoss
from instil.functional.robust_losses import soft_label_loss
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


def trust(teacher_logits: Tensor, target: Tensor, beta: float = 0.1) -> Tensor:
    """Trust in the teacher: its probability of the target class to the power ``beta``.

    Args:
        teacher_logits: logits (N, C) for attacked images.
        target: class indices (N,).
        beta: exponent, >= 0.

    Returns:
        (N,) in [0, 1].
    """
    log_probs = to_float32(teacher_logits).log_softmax(-1)
    # A power computed from the logarithm, which stays exact for probabilities that would underflow.
    return (beta * log_probs.gather(-1, target.unsqueeze(-1)).squeeze(-1)).exp()


def iad_loss(
    attacked_logits: Tensor,
    clean_logits: Tensor,
    teacher_logits: Tensor,
    trusted: Tensor,
    temperature: float = 1.0,
    partial: bool = False,
) -> Tensor:
    """Introspective adversarial distillation loss (Zhu et al. 2022).

    Sum of the divergence from the teacher's soft labels and, with the weight 1 - ``trusted``, the
    divergence from the student's own soft labels for the clean image. As published, gradients also
    reach the latter.

    Args:
        attacked_logits: student logits (N, C) for attacked images.
        clean_logits: student logits (N, C) for clean images.
        teacher_logits: (N, C).
        trusted: trust in the teacher (N,).
        temperature: softmax temperature of the teacher's term, > 0.
        partial: multiply the teacher's term by ``trusted``, as in the paper.

    Returns:
        One value per image (N,).

    Example:
        >>> iad_loss(torch.zeros(1, 3), torch.zeros(1, 3), torch.eye(3)[:1], torch.ones(1))
        tensor([0.1233])
    """
    teacher_term = soft_label_loss(attacked_logits, teacher_logits, temperature)
    if partial:
        teacher_term = trusted * teacher_term
    return teacher_term + (1 - trusted) * soft_label_loss(attacked_logits, clean_logits)


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
        "attack step, and one more forward pass of the teacher.",
        deviations="The paper multiplies the teacher's term by the trust; the authors' code does "
        "not (option partial). The student is attacked in evaluation mode; the authors' code "
        "attacks it in training mode. An image without a label is attacked at the teacher's class.",
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
        outputs = self.teacher_outputs(batch | {"image": batch["attacked"]})
        under_attack = outputs["logits"]
        # The class of an unlabelled image comes from the clean image, the trust from the attacked
        # one.
        trusted = trust(under_attack, self.targets(batch, teacher_logits), self.beta)
        if float(batch.get("progress", 0.0)) < self.trusting:
            trusted = torch.ones_like(trusted)
        soft_labels = under_attack if self.answers_to == "attacked" else teacher_logits
        return self.extra_losses(attacked_logits, outputs) + iad_loss(
            attacked_logits, student_logits, soft_labels, trusted, self.temperature, self.partial
        )

    def extra_losses(self, attacked_logits: Tensor, teacher_outputs: Outputs) -> Tensor:
        """Compute further losses (N,) from the teacher's outputs for the attacked images."""
        return attacked_logits.new_zeros(len(attacked_logits))
