"""Adapters for losses on the stages of two nets that learn how to compare them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instil.core import Outputs
from instil.objectives.features.semckd import SemCKD
from tests.golden.cases import Case


def only(case: Case, *names: str) -> None:
    """NotImplementedError where the case has an option that the adapter does not read."""
    if unknown := sorted(set(case.options) - set(names)):
        raise NotImplementedError(f"option {unknown[0]} of {case.method}")


def semckd(case: Case) -> Tensor:
    """The authors' two versions name their parameters differently; the later one has regressors in the embeddings that it does not use."""
    only(case, "factor", "soft", "bn_training")
    student: Outputs = {"features": case.stages("student.features")}
    teacher: Outputs = {"features": case.stages("teacher.features")}
    objective = SemCKD("batch", case.option("factor", 4), case.option("soft", 1.0), "batch")
    objective.build(student, teacher)
    parameters: dict[str, Tensor] = {}
    for number, (i, j) in enumerate(objective.matched):
        parameters |= {f"adapters.{number}.{name}": value for name, value in case.params(f"regressor{i}{j}.regressor.").items()}
    for ours, officials, side in (("queries", ("query_weight{}", "query_{}"), student), ("keys", ("key_weight{}", "key_{}"), teacher)):
        for number in range(len(side["features"])):
            for layer, linear in (("first", "linear1"), ("second", "linear2")):
                found = next(p for p in (case.params(f"{name.format(number)}.{linear}.") for name in officials) if p)
                parameters |= {f"{ours}.{number}.{layer}.{name}": value for name, value in found.items()}
    return called(objective, parameters, student, teacher, {}, training=case.option("bn_training", True)).mean()


def called(module: nn.Module, parameters: dict[str, Tensor], *arguments: object, training: bool = True) -> Tensor:
    """What a module gives with the case's parameters, whose buffers stay as they are."""
    module.double().train(training)
    held = {name: value.clone() if not value.requires_grad else value for name, value in parameters.items()}
    result: Tensor = torch.func.functional_call(module, held, arguments, strict=True)
    return result


ADAPTERS = {"semckd": semckd}
