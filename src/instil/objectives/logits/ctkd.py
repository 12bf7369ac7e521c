"""Curriculum temperature: a learned temperature makes the student's task harder, by a gradient turned round."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from instil.core import Batch, Card, NonNegative, Outputs, Positive, closest, full
from instil.functional.divergences import kl_divergence
from instil.functional.logits import reduced, require_same_logits
from instil.modules.adapters import like
from instil.objectives.bases.logit_objective import LogitObjective

FORMS = ("global", "instance")


def ctkd_loss(
    student: Tensor, teacher: Tensor, temperature: Tensor, reduction: str = "mean"
) -> Tensor:
    """T² KL(teacher || student) at a temperature that may be learned: one number () or one an item (...) (Li et al. 2023).

    Logits (..., C) give (...) for reduction ``none``. The factor T² has a gradient too: it keeps the temperature from growing without end.
    Raises ValueError for one class and where the shapes differ.
    """
    require_same_logits(student, teacher, classes=2)
    softness = temperature.unsqueeze(-1)
    # The gradient of the temperature is a product with the logits, which must be finite for it.
    log_student, log_teacher = (
        (_finite(logits) / softness).log_softmax(-1) for logits in (student, teacher)
    )
    values = kl_divergence(log_teacher, log_student)
    return reduced(values * temperature**2, reduction)


def _finite(logits: Tensor) -> Tensor:
    """Logits whose impossible classes have the lowest finite number in place of minus infinity."""
    logits = full(logits)
    return logits.clamp_min(torch.finfo(logits.dtype).min / 2)


def reversed_gradient(values: Tensor, strength: float) -> Tensor:
    """The same values; the gradient through them is multiplied by -``strength``."""
    return values.detach() - strength * (values - values.detach())


class CTKD(LogitObjective):
    """KD at a temperature that is learned against the student; logits (..., C).

    ``form``: one temperature for all, or one an item, which a small network reads off both sides' logits.
    ``lowest``: where the temperature's range begins.
    ``span``: how wide the range is; the temperature lies between ``lowest`` and ``lowest`` + ``span``.
    ``strength``: how much of the reversed gradient the temperature gets, the paper's lambda, which rises from 0 to 1 in the first epochs.
    ``width``: hidden units of the instance form's network.
    """

    card = Card(
        "Curriculum Temperature for Knowledge Distillation",
        "https://arxiv.org/abs/2211.16231",
        "AAAI",
        2023,
        source="logits",
        algorithms=("adversarial", "adaptive"),
        labels=("single",),
        deviations="The paper's curriculum is half a cosine over the first 10 of 240 epochs; here it is a schedule of strength, {start: 0, end: 1, "
        "until: 0.04}. The instance form's code is not in the official repository: two layers on both logits, as the paper says, of a width of ours; "
        "no gradient of the temperature reaches the student.",
        equation=r"\min_{s} \max_{\theta} T^2 \mathrm{KL}(p^t_T \Vert p^s_T), \quad T = T_0 + \frac{S}{1 + e^{-\theta}}",
        use="kd without a search for the temperature: it is learned during training, and made to keep the student's task hard. The global form "
        "has one parameter, the instance form a small network on the logits of both sides.",
        pitfalls="With the default range the temperature starts at 15.6. Let strength rise from 0 as published. It moves at the student's "
        "learning rate, so another optimizer gives another curriculum. Published weights are 0.9 beside 0.1 of the label loss on CIFAR-100 and 1 "
        "beside 1 on ImageNet. A port has been seen that multiplies the gradient by a positive number, which does not reverse it.",
    )

    def __init__(
        self,
        form: Literal["global", "instance"] = "global",
        lowest: Positive = 1.0,
        span: Positive = 20.0,
        strength: NonNegative = 1.0,
        width: Annotated[int, Ge(1)] = 64,
        standardize: bool = False,
    ):
        super().__init__(standardize)
        if form not in FORMS:
            raise ValueError(f"form: no form '{form}'; {closest(form, FORMS)}")
        self.form, self.lowest, self.span, self.strength, self.width = (
            form,
            lowest,
            span,
            strength,
            width,
        )

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """The temperature's level, or the network that gives it. Raises ValueError for the instance form where the classes differ."""
        logits: Tensor = student["logits"]
        if self.form == "global":
            self.level = nn.Parameter(full(logits).new_ones(1))
            return
        require_same_logits(logits, teacher["logits"], classes=2)
        network = nn.Sequential(
            nn.Linear(2 * logits.shape[-1], self.width), nn.ReLU(), nn.Linear(self.width, 1)
        )
        self.network = network.to(logits.device, full(logits).dtype)

    def temperature(self, student: Tensor, teacher: Tensor) -> Tensor:
        """One temperature () or one an item (...), between ``lowest`` and ``lowest`` + ``span``."""
        if self.form == "global":
            level = self.level.reshape(())
        else:
            level = self.network(
                like(self.network, torch.cat([student.detach(), teacher.detach()], -1)).masked_fill(
                    torch.cat([student, teacher], -1) == -torch.inf, 0.0
                )
            ).squeeze(-1)
        return self.lowest + self.span * reversed_gradient(level, self.strength).sigmoid()

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        return ctkd_loss(student, teacher, self.temperature(student, teacher), "none")
