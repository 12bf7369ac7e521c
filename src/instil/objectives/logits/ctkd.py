"""Curriculum temperature: a softmax temperature trained adversarially to the student."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Outputs, Positive, to_float32
from instil.functional.choices import require_choice
from instil.functional.divergences import kl_divergence
from instil.functional.logits import apply_reduction, clamp_to_finite, require_same_logits
from instil.modules.adapters import match_dtype
from instil.objectives.bases.logit_objective import LogitObjective

FORMS = ("global", "instance")


def ctkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: Tensor,
    reduction: str = "mean",
) -> Tensor:
    """KL divergence at a temperature that may be learned (Li et al. 2023).

    The divergence is multiplied by ``temperature ** 2``. This factor has a gradient too, which
    keeps the temperature from growing without bound.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        temperature: softmax temperature, scalar or one per item (...), > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ or there is only one class.

    Example:
        >>> import torch
        >>> ctkd_loss(torch.zeros(2, 3), torch.eye(3)[:2], torch.tensor(4.0))
        tensor(0.1166)
    """
    require_same_logits(student_logits, teacher_logits, classes=2)
    # A scalar becomes (1,) and (...) becomes (..., 1): both broadcast over the classes.
    divisor = temperature.unsqueeze(-1)
    # The gradient of the temperature is a product with the logits, which must be finite for it.
    log_student = (clamp_to_finite(to_float32(student_logits)) / divisor).log_softmax(-1)
    log_teacher = (clamp_to_finite(to_float32(teacher_logits)) / divisor).log_softmax(-1)
    values = kl_divergence(log_teacher, log_student)
    return apply_reduction(values * temperature**2, reduction)


def reversed_gradient(values: Tensor, strength: float) -> Tensor:
    """Gradient reversal: identity in the forward pass, a factor of ``-strength`` in the backward.

    Args:
        values: tensor of any shape.
        strength: factor of the reversed gradient.

    Returns:
        The same values.
    """
    # The difference is 0 in value and carries the gradient.
    return values.detach() - strength * (values - values.detach())


class CTKD(LogitObjective):
    """KD at a temperature that is trained to increase the student's loss.

    Logits are (..., C).
    """

    card = Card(
        "Curriculum Temperature for Knowledge Distillation",
        "https://arxiv.org/abs/2211.16231",
        "AAAI",
        2023,
        source="logits",
        algorithms=("adversarial", "adaptive"),
        labels=("single",),
        published_weight=9.0,
        weight_setting="the authors' code, CIFAR-100, ResNet20 <- ResNet56: 0.9, and 0.1 for the "
        "label loss",
        deviations="The paper's curriculum is half a cosine over the first 10 of 240 epochs. Here "
        "it is a schedule of strength, {start: 0, end: 1, until: 0.04}. The code of the instance "
        "form is not in the official repository. Here it has two layers on both logits, as in the "
        "paper, and a width chosen by us. No gradient of the temperature reaches the student.",
        equation=r"\min_{s} \max_{\theta} T^2 \mathrm{KL}(p^t_T \Vert p^s_T), \quad T = T_0 + "
        r"\frac{S}{1 + e^{-\theta}}",
        use="kd without a search for the temperature. The temperature is learned during training, "
        "and keeps the student's task hard. The global form has one parameter, the instance form a "
        "small network on the logits of both sides.",
        pitfalls="With the default range the temperature starts at 15.6. Increase strength from 0 "
        "as published. The temperature uses the student's learning rate, so another optimizer "
        "gives another curriculum. On ImageNet the authors use 1 for both losses. One known port "
        "multiplies the gradient by a positive number, which does not reverse it.",
    )

    def __init__(
        self,
        form: Annotated[
            Literal["global", "instance"],
            Doc("one temperature for all items, or one per item from a small network"),
        ] = "global",
        lowest: Annotated[Positive, Doc("lower end of the temperature's range")] = 1.0,
        span: Annotated[Positive, Doc("width of the temperature's range, above lowest")] = 20.0,
        strength: Annotated[
            NonNegative,
            Doc("factor of the reversed gradient; the paper raises it from 0 to 1 at the start"),
        ] = 1.0,
        width: Annotated[int, Ge(1), Doc("hidden units of the network of the instance form")] = 64,
        standardize: Annotated[
            bool, Doc("standardize the logits of both sides over the classes first")
        ] = False,
    ):
        super().__init__(standardize)
        require_choice("form", form, FORMS)
        self.form = form
        self.lowest = lowest
        self.span = span
        self.strength = strength
        self.width = width

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Create the parameter of the temperature, or the network that predicts it.

        Raises:
            ValueError: if the classes differ in the instance form.
        """
        logits: Tensor = student["logits"]
        if self.form == "global":
            self.level = nn.Parameter(to_float32(logits).new_ones(1))
            return
        require_same_logits(logits, teacher["logits"], classes=2)
        network = nn.Sequential(
            nn.Linear(2 * logits.shape[-1], self.width), nn.ReLU(), nn.Linear(self.width, 1)
        )
        self.network = network.to(logits.device, to_float32(logits).dtype)

    def temperature(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Current temperature, between ``lowest`` and ``lowest + span``.

        Args:
            student_logits: (..., C).
            teacher_logits: (..., C).

        Returns:
            Scalar, or one temperature per item (...) in the instance form.
        """
        if self.form == "global":
            level = self.level.reshape(())
        else:
            logits = torch.cat([student_logits, teacher_logits], -1)
            # Detached: the temperature learns from the logits, and the student does not learn
            # through it.
            inputs = torch.cat([student_logits.detach(), teacher_logits.detach()], -1)
            inputs = match_dtype(self.network, inputs).masked_fill(logits == -torch.inf, 0.0)
            level = self.network(inputs).squeeze(-1)
        return self.lowest + self.span * reversed_gradient(level, self.strength).sigmoid()

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        temperature = self.temperature(student_logits, teacher_logits)
        return ctkd_loss(student_logits, teacher_logits, temperature, "none")
