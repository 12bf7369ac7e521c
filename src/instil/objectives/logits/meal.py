"""MEAL V2: KL divergence to an ensemble, with a discriminator on the logits."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Outputs, to_float32
from instil.functional.divergences import softened_kl
from instil.functional.logits import apply_reduction, require_same_logits
from instil.objectives.bases.logit_objective import LogitObjective


def meal_similarity_loss(
    student_logits: Tensor, teacher_logits: Tensor, reduction: str = "mean"
) -> Tensor:
    """KL divergence from teacher to student at temperature 1 (Shen & Savvides 2020, Eq. 2).

    Differs from the paper's cross-entropy by the teacher's entropy, which is constant.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C), usually of an ensemble.
        reduction: ``"mean"`` or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> meal_similarity_loss(torch.zeros(2, 3), torch.eye(3)[:2])
        tensor(0.1233)
    """
    require_same_logits(student_logits, teacher_logits)
    return apply_reduction(softened_kl(student_logits, teacher_logits), reduction)


def meal_discriminator_loss(
    student_scores: Tensor, teacher_scores: Tensor, reduction: str = "mean"
) -> Tensor:
    """Binary cross-entropy of the discriminator (Shen & Savvides 2020, Eq. 4).

    The targets are [1, 0] for the student and [0, 1] for the teacher. The value is the mean over
    the four scores of an item.

    Args:
        student_scores: discriminator outputs for the student's logits, (..., 2).
        teacher_scores: discriminator outputs for the teacher's logits, (..., 2).
        reduction: ``"mean"`` or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Example:
        >>> import torch
        >>> meal_discriminator_loss(torch.tensor([[2.0, -2.0]]), torch.tensor([[-2.0, 2.0]]))
        tensor(0.1269)
    """
    student_is_student, student_is_teacher = to_float32(student_scores).unbind(-1)
    teacher_is_student, teacher_is_teacher = to_float32(teacher_scores).unbind(-1)
    log_likelihood = (
        F.logsigmoid(student_is_student)
        + F.logsigmoid(-student_is_teacher)
        + F.logsigmoid(-teacher_is_student)
        + F.logsigmoid(teacher_is_teacher)
    )
    return apply_reduction(log_likelihood / -4, reduction)


class MEAL(LogitObjective):
    """KL divergence to an ensemble, and a discriminator between student and ensemble logits."""

    card = Card(
        "MEAL V2: Boosting Vanilla ResNet-50 to 80%+ Top-1 Accuracy on ImageNet without Tricks",
        "https://arxiv.org/abs/2009.08453",
        "NeurIPS Workshop",
        2020,
        source="logits",
        finite_logits=True,
        algorithms=("adversarial", "multi-teacher"),
        labels=("single",),
        zero_at_match=False,
        deviations="The authors' code reverses no gradient, so student and discriminator "
        "minimise the same loss: adversarial=False. The authors' discriminator ends with a "
        "ReLU, which is left out here.",
        equation=r"\mathrm{KL}(p^t \Vert p^s) + \lambda \left( \mathrm{BCE}(D(z^s), [1, 0]) + "
        r"\mathrm{BCE}(D(z^t), [0, 1]) \right)",
        use="To distil an ensemble of teachers, or one teacher, into a student that is already "
        "trained. The paper uses no labels.",
        pitfalls="At a match the discriminator loss is log 2, not zero. The discriminator is "
        "trained by the student's optimizer. If it becomes too strong, its gradient is mostly "
        "noise for the student: keep its weight small.",
    )

    def __init__(
        self,
        discriminator: Annotated[NonNegative, Doc("weight of the discriminator loss")] = 1.0,
        adversarial: Annotated[
            bool,
            Doc(
                "reverse the discriminator's gradient for the student; false as in the "
                "authors' code"
            ),
        ] = True,
        standardize: Annotated[
            bool, Doc("standardize the logits of each side over the classes first")
        ] = False,
    ):
        super().__init__(standardize)
        self.discriminator = discriminator
        self.adversarial = adversarial
        self.critic: nn.Module = nn.Identity()

    def build(self, student_outputs: Outputs, teacher_outputs: Outputs) -> None:
        """Create the discriminator: three linear layers of decreasing width, with two outputs."""
        logits = student_outputs["logits"]
        classes = logits.shape[-1]
        widths = [classes, max(2, classes // 2), max(2, classes // 4), 2]
        # Without the last ReLU, so that scores can be negative.
        layers: list[nn.Module] = []
        for i in range(3):
            layers += [nn.Linear(widths[i], widths[i + 1]), nn.ReLU()]
        self.critic = nn.Sequential(*layers[:-1]).to(logits.device, to_float32(logits).dtype)

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        critic_input = student_logits
        if self.adversarial:
            # Gradient reversal: the same values with the opposite gradient.
            critic_input = 2 * student_logits.detach() - student_logits
        student_scores = self.critic(to_float32(critic_input))
        teacher_scores = self.critic(to_float32(teacher_logits))
        similarity = meal_similarity_loss(student_logits, teacher_logits, "none")
        return similarity + self.discriminator * meal_discriminator_loss(
            student_scores, teacher_scores, "none"
        )
