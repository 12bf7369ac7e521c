"""Adapters for adversarial distillation; the logits of the attacked images are inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.functional.robust_losses import soft_label_loss
from instil.objectives.labels.cross_entropy import cross_entropy_loss
from instil.objectives.logits.kd import kd_loss
from instil.schemes.bases.introspection import iad_loss, trust
from tests.golden.cases import Case
from tests.golden.logits import Answer, temperature


def reduced(case: Case, values: Tensor, classes: int) -> Tensor:
    """Average over the images, and over the classes if the code does so."""
    if case.mentions("mean over N*C", '"mean" over N*C'):
        return values.mean() / classes * (10 if case.mentions("times 10") else 1)
    if not case.mentions("/ N", "batchmean"):
        raise NotImplementedError(f"reduction: {case.reduction}")
    return values.mean()


def ard(case: Case) -> Answer:
    student, attacked, teacher, share = (
        case["student.logits"],
        case["student.adv_logits"],
        case["teacher.logits"],
        case.option("alpha"),
    )
    robust = reduced(case, soft_label_loss(attacked, teacher, temperature(case)), student.shape[-1])
    return share * robust + (1 - share) * cross_entropy_loss(student, case["target"]), {}


def rslad(case: Case) -> Answer:
    """The code adds 1e-5 to the teacher probability inside the logarithm, a constant offset."""
    student, attacked, teacher = (
        case["student.logits"],
        case["student.adv_logits"],
        case["teacher.logits"],
    )
    log_p = teacher.log_softmax(-1)
    added = (log_p.exp() * (torch.log(log_p.exp() + 1e-5) - log_p)).sum(-1)
    parts = {
        "part.adv": reduced(case, soft_label_loss(attacked, teacher) + added, student.shape[-1]),
        "part.nat": reduced(
            case, kd_loss(student, teacher, 1.0, reduction="none") + added, student.shape[-1]
        ),
    }
    return 5 / 6 * parts["part.adv"] + 1 / 6 * parts["part.nat"], parts


def adaad(case: Case) -> Answer:
    student, share = case["student.logits"], case.option("alpha")
    parts = {
        "part.adv": reduced(
            case,
            soft_label_loss(case["student.adv_logits"], case["teacher.adv_logits"]),
            student.shape[-1],
        ),
        "part.nat": reduced(
            case, kd_loss(student, case["teacher.logits"], 1.0, reduction="none"), student.shape[-1]
        ),
    }
    return share * parts["part.adv"] + (1 - share) * parts["part.nat"], parts


def iad(case: Case) -> Answer:
    student, attacked, under_attack = (
        case["student.logits"],
        case["student.adv_logits"],
        case["teacher.adv_logits"],
    )
    trusted = trust(under_attack, case["target"], case.option("beta"))
    teacher = case["teacher.logits" if "teacher.logits" in case else "teacher.adv_logits"]
    robust = reduced(
        case, iad_loss(attacked, student, teacher, trusted, temperature(case)), student.shape[-1]
    )
    share = case.option("alpha")
    return share * robust + (1 - share) * cross_entropy_loss(student, case["target"]), {
        "trust": trusted
    }


ADAPTERS = {"ard": ard, "rslad": rslad, "adaad": adaad, "iad": iad}
