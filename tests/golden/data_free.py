"""Adapters for data-free students and generators."""

from __future__ import annotations

import math

from torch import Tensor

from instil.objectives.features.attention_transfer import attention_transfer_loss
from instil.objectives.logits.kd import kd_loss
from instil.objectives.logits.logit_mae import logit_mae_loss
from instil.schemes.bases.generator_losses import (
    activation_loss,
    balance_loss,
    disagreement_loss,
    one_hot_loss,
)
from tests.golden.cases import Case
from tests.golden.logits import Answer
from tests.golden.online import stored_outputs


def summed(case: Case, parts: dict[str, tuple[str, Tensor]]) -> Answer:
    """Return the weighted sum of the terms, and the terms that the case contains."""
    loss: Tensor = sum(  # type: ignore[assignment]
        case.option(weight, 1.0) * value for weight, (_, value) in parts.items()
    )
    return loss, stored_outputs(case, {f"part.{name}": value for name, value in parts.values()})


def zskt(case: Case) -> Answer:
    """The code also divides the KL by the number of classes; the generator loss is its negative."""
    student, teacher, soft = (
        case["student.logits"],
        case["teacher.logits"],
        case.option("KL_temperature", 1.0),
    )
    if case.mentions("minus"):
        case.ignore("AT_beta")  # in the loss of the student
        return -disagreement_loss(student / soft, teacher / soft).mean() / student.shape[-1], {}
    attention = [attention_transfer_loss(s, t) for s, t in case.pairs()]
    return kd_loss(student, teacher, soft, scale=False) / student.shape[-1] + case.option(
        "AT_beta", 0.0
    ) * sum(attention), {}


def dafl(case: Case) -> Answer:
    teacher = case["teacher.generated_logits"]
    base = 10 if case.mentions("log10") else math.e
    parts = {
        "oh": ("one_hot", one_hot_loss(teacher)),
        "ie": ("entropy", balance_loss(teacher, base)),
        "a": ("activation", activation_loss(case["teacher.generated_features"]).mean()),
        "kd": ("kd", kd_loss(case["student.logits"], teacher.detach(), 1.0)),
    }
    return summed(case, parts)


def dfad(case: Case) -> Answer:
    student, teacher = case["student.logits"], case["teacher.logits"]
    if not case.formula.startswith("-"):
        return logit_mae_loss(student, teacher), {}
    apart = disagreement_loss(student, teacher, "mae").mean()
    return -apart.log1p() if "log" in case.formula else -apart, {}


def datafree_generator(case: Case) -> Answer:
    student, teacher = case["student.logits"], case["teacher.logits"]
    parts = {
        "oh": ("oh", one_hot_loss(teacher)),
        **(
            {"act": ("act", activation_loss(case["teacher.features.0"]).mean())}
            if "teacher.features.0" in case
            else {}
        ),
        "adv": ("adv", -disagreement_loss(student, teacher).mean()),
        "balance": ("balance", balance_loss(teacher)),
    }
    return summed(case, parts)


ADAPTERS = {"zskt": zskt, "dafl": dafl, "dfad": dfad, "datafree_generator": datafree_generator}
