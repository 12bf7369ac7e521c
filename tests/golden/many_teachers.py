"""Adapters for losses of several teachers."""

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
    """Logits of all teachers (or assistants) of a case, (K, ..., C), by their number."""
    return torch.stack(
        [case[f"{group}.{number}.logits"] for number in numbers(case, group, "logits")]
    )


def numbers(case: Case, group: str, role: str) -> list[int]:
    """Which teachers of the group give the role."""
    found = [
        name.removeprefix(group + ".").removesuffix("." + role)
        for name in case.arrays
        if name.startswith(group + ".") and name.endswith("." + role)
    ]
    return sorted(int(number) for number in found if number.isdigit())


def once_more(case: Case, teachers: int) -> float:
    """What the code divides by beside our weights, which sum to 1."""
    if not case.says("N K"):
        raise NotImplementedError(f"reduction: {case.reduction}")
    return float(teachers)


def squared_temperature(case: Case) -> bool:
    return case.says("T^2 included")


def ebkd(case: Case) -> Answer:
    """The code's weights sum to K - 1."""
    teachers, soft = stacked(case, "teachers"), temperature(case)
    loss = ebkd_loss(case["student.logits"], teachers, soft) / (
        1 if squared_temperature(case) else soft**2
    )
    total = max(1, len(teachers) - 1)
    return loss * total / once_more(case, len(teachers)), {
        "weights": ebkd_weights(teachers) * total
    }


def camkd(case: Case) -> Answer:
    """The logits' part, or the stages' where the case has them."""
    target = case["target"]
    if "teachers.0.logits" in case:
        teachers, soft = stacked(case, "teachers"), temperature(case)
        loss = camkd_logit_loss(case["student.logits"], teachers, target, soft) / (
            1 if squared_temperature(case) else soft**2
        )
        return loss / once_more(case, len(teachers)), {"weights": camkd_weights(teachers, target)}
    through = stacked(case, "student.through_teacher")
    which = range(len(through))
    mine, theirs = (
        [case[f"student.transformed.{k}"] for k in which],
        [case[f"teachers.{k}.features.0"] for k in which],
    )
    return camkd_feature_loss(mine, theirs, through, target) / once_more(case, len(through)), {
        "weights": camkd_weights(through, target)
    }


def dgkd(case: Case) -> Answer:
    """The teacher and its assistants, none of them left out; the code's KL is a mean over the
    classes too.
    """
    if case.option("drop_num", 0):
        raise NotImplementedError("drop_num: who was left out is not in the case")
    student, share = case["student.logits"], case.option("lambda")
    assistants = [
        case[f"assistants.{number}.logits"] for number in numbers(case, "assistants", "logits")
    ]
    soft = dgkd_loss(student, torch.stack([case["teacher.logits"], *assistants]), temperature(case))
    if case.says("N*C", '"mean"'):
        soft = soft / student.shape[-1]
    return (1 - share) * cross_entropy_loss(student, case["target"]) + share * soft, {}


ADAPTERS = {"ebkd": ebkd, "camkd": camkd, "dgkd": dgkd}
