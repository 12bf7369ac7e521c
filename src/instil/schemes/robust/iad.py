"""The student trusts the teacher as far as the teacher withstands the attack, and for the rest itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from instil.core import (
    Batch,
    Card,
    NonNegative,
    Objective,
    Objectives,
    Outputs,
    Positive,
    Teacher,
    to_float32,
)
from instil.functional.attacks import AttackLoss
from instil.schemes.bases.robust import EPSILON, STEP_SIZE, RobustScheme, soft_label_loss


def trust(teacher: Tensor, target: Tensor, beta: float = 0.1) -> Tensor:
    """The teacher's probability of the class to the power ``beta``: logits (N, C) for attacked images and class indices (N,) give (N,)."""
    return (
        beta * to_float32(teacher).log_softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1)
    ).exp()


def iad_loss(
    attacked: Tensor,
    clean: Tensor,
    teacher: Tensor,
    trusted: Tensor,
    temperature: float = 1.0,
    partial: bool = False,
) -> Tensor:
    """The teacher's soft labels, and by 1 - ``trusted`` the student's own for the ``clean`` image: logits (N, C) give (N,).

    ``partial``: the teacher's part is multiplied by ``trusted``, as in the paper. Gradients reach the student's own soft labels, as published.
    """
    taught = soft_label_loss(attacked, teacher, temperature)
    return (trusted * taught if partial else taught) + (1 - trusted) * soft_label_loss(
        attacked, clean
    )


class IAD(RobustScheme):
    """The attack raises the student's cross-entropy with the label; of the attacked image the student learns the teacher's answer, and its own to
    the clean image the more, the less the teacher under the same attack gives the label (Zhu et al. 2022, IAD-I). Defaults as published for CIFAR-10,
    where the objectives have the weight 1 - ``weight``.

    ``temperature``: divides the logits of the teacher's part, with its square as a factor.
    ``beta``: the power of the teacher's probability that is the trust in it.
    ``answers_to``: which images the teacher's soft labels are of; clean as published, attacked as with attacks that adapt to the teacher.
    ``partial``: the teacher's part is multiplied by the trust, as in the paper; the authors' code leaves it whole.
    ``trusting``: the first share of the training, in which the teacher is trusted fully (60 of 200 epochs).
    """

    card = Card(
        "Reliable adversarial distillation with unreliable teachers",
        "https://arxiv.org/abs/2106.04928",
        "ICLR",
        2022,
        source="offline",
        algorithms=("adversarial", "adaptive"),
        labels=("single",),
        equation=r"T^2 \mathrm{KL}(p^t_T(x) \Vert p^s_T(x_{adv})) + (1 - A) \mathrm{KL}(p^s(x) \Vert p^s(x_{adv})), \quad A = p^t_y(x_{adv})^\beta",
        use="A teacher that withstands the attacks on the student only in part; clean labels are an objective, cross_entropy, beside it.",
        pitfalls="The trust needs the label: without one it is that in the teacher's own class. Every step costs as many passes forth and back "
        "through the student as the attack has steps, and one more through the teacher.",
        deviations="The paper multiplies the teacher's part by the trust, the authors' code does not (partial); the student is attacked in eval "
        "mode, theirs in train mode; an image without a label is attacked at the teacher's class.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        weight: NonNegative = 1.0,
        temperature: Positive = 1.0,
        beta: NonNegative = 0.1,
        answers_to: Literal["clean", "attacked"] = "clean",
        partial: bool = False,
        trusting: Annotated[float, Ge(0), Le(1)] = 0.3,
        epsilon: NonNegative = EPSILON,
        step_size: Positive = STEP_SIZE,
        attack_steps: Annotated[int, Ge(1)] = 10,
    ):
        super().__init__(student, teacher, objectives, weight, epsilon, step_size, attack_steps)
        self.temperature, self.beta, self.answers_to, self.partial, self.trusting = (
            temperature,
            beta,
            answers_to,
            partial,
            trusting,
        )

    def attack_loss(self, batch: Batch) -> AttackLoss:
        return self.label_attack(batch)

    def robust_losses(
        self, batch: Batch, attacked: Tensor, student: Tensor, teacher: Tensor
    ) -> Tensor:
        answers = self.teacher_outputs(batch | {"image": batch["attacked"]})
        under_attack = answers["logits"]
        trusted = trust(under_attack, self.targets(batch, teacher), self.beta)
        if float(batch.get("progress", 0.0)) < self.trusting:
            trusted = torch.ones_like(trusted)
        target = under_attack if self.answers_to == "attacked" else teacher
        return self.beside(attacked, answers) + iad_loss(
            attacked, student, target, trusted, self.temperature, self.partial
        )

    def beside(self, attacked: Tensor, answers: Outputs) -> Tensor:
        """(N,): what else is learnt of attacked images from the teacher's ``answers`` to them; here nothing."""
        return attacked.new_zeros(len(attacked))
