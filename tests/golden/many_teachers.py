"""Adapters for losses with several teachers."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.objectives.features.camkd import camkd_feature_loss, camkd_logit_loss, camkd_weights
from instil.objectives.labels.cross_entropy import cross_entropy_loss
from instil.objectives.logits.dgkd import dgkd_loss
from instil.objectives.logits.ebkd import ebkd_loss, ebkd_weights
from tests.golden.cases import Case
from tests.golden.logits import Answer, temperature


def stacked(case: Case, group: str) -> Tensor:
    """Return the logits of all teachers (or assistants) of a case, (K, ..., C)."""
    return torch.stack(
        [case[f"{group}.{index}.logits"] for index in numbers(case, group, "logits")]
    )


def numbers(case: Case, group: str, role: str) -> list[int]:
    """Return the indices of the teachers of the group with the role."""
    keys = [
        name.removeprefix(group + ".").removesuffix("." + role)
        for name in case.arrays
        if name.startswith(group + ".") and name.endswith("." + role)
    ]
    return sorted(int(index) for index in keys if index.isdigit())


def normalizer(case: Case, teachers: int) -> float:
    """Return the additional divisor of the code; the weights themselves sum to 1."""
    if not case.mentions("N K"):
        raise NotImplementedError(f"reduction: {case.reduction}")
    return float(teachers)


def squared_temperature(case: Case) -> bool:
    return case.mentions("T^2 included")


def ebkd(case: Case) -> Answer:
    """The weights of the code sum to K - 1."""
    teachers, soft = stacked(case, "teachers"), temperature(case)
    loss = ebkd_loss(case["student.logits"], teachers, soft) / (
        1 if squared_temperature(case) else soft**2
    )
    total = max(1, len(teachers) - 1)
    return loss * total / normalizer(case, len(teachers)), {
        "weights": ebkd_weights(teachers) * total
    }


def camkd(case: Case) -> Answer:
    """Logit term, or feature term if the case has stages."""
    target = case["target"]
    if "teachers.0.logits" in case:
        teachers, soft = stacked(case, "teachers"), temperature(case)
        loss = camkd_logit_loss(case["student.logits"], teachers, target, soft) / (
            1 if squared_temperature(case) else soft**2
        )
        return loss / normalizer(case, len(teachers)), {"weights": camkd_weights(teachers, target)}
    through = stacked(case, "student.through_teacher")
    which = range(len(through))
    student, teacher = (
        [case[f"student.transformed.{k}"] for k in which],
        [case[f"teachers.{k}.features.0"] for k in which],
    )
    return camkd_feature_loss(student, teacher, through, target) / normalizer(case, len(through)), {
        "weights": camkd_weights(through, target)
    }


def dgkd(case: Case) -> Answer:
    """Teacher and all assistants; the KL of the code is averaged over the classes too."""
    if case.option("drop_num", 0):
        raise NotImplementedError("drop_num: who was left out is not in the case")
    student, share = case["student.logits"], case.option("lambda")
    assistants = [
        case[f"assistants.{index}.logits"] for index in numbers(case, "assistants", "logits")
    ]
    soft = dgkd_loss(student, torch.stack([case["teacher.logits"], *assistants]), temperature(case))
    if case.mentions("N*C", '"mean"'):
        soft = soft / student.shape[-1]
    return (1 - share) * cross_entropy_loss(student, case["target"]) + share * soft, {}


ADAPTERS = {"ebkd": ebkd, "camkd": camkd, "dgkd": dgkd}
