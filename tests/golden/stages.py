"""Adapters for losses on the stages of two nets that learn how to compare them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Outputs
from instil.objectives.features.semckd import SemCKD
from instil.objectives.features.simkd import SimKD
from instil.objectives.features.srrl import SRRL, srrl_loss
from tests.golden.cases import Case


def only(case: Case, *names: str) -> None:
    """NotImplementedError where the case has an option that the adapter does not read."""
    if unknown := sorted(set(case.options) - set(names)):
        raise NotImplementedError(f"option {unknown[0]} of {case.method}")


def semckd(case: Case) -> Tensor:
    """The authors' two versions name their parameters differently; the later one has regressors in
    the embeddings that it does not use.
    """
    only(case, "factor", "soft", "bn_training")
    student: Outputs = {"features": case.stages("student.features")}
    teacher: Outputs = {"features": case.stages("teacher.features")}
    objective = SemCKD("batch", case.option("factor", 4), case.option("soft", 1.0), "batch")
    objective.build(student, teacher)
    parameters: dict[str, Tensor] = {}
    for number, (i, j) in enumerate(objective.matched):
        parameters |= {
            f"adapters.{number}.{name}": value
            for name, value in case.params(f"regressor{i}{j}.regressor.").items()
        }
    for ours, officials, side in (
        ("queries", ("query_weight{}", "query_{}"), student),
        ("keys", ("key_weight{}", "key_{}"), teacher),
    ):
        for number in range(len(side["features"])):
            for layer, linear in (("first", "linear1"), ("second", "linear2")):
                found = next(
                    p
                    for p in (case.params(f"{name.format(number)}.{linear}.") for name in officials)
                    if p
                )
                parameters |= {
                    f"{ours}.{number}.{layer}.{name}": value for name, value in found.items()
                }
    return called(
        objective, parameters, student, teacher, {}, training=case.option("bn_training", True)
    ).mean()


def srrl(case: Case) -> Tensor:
    """With a connector of the case's own, or on maps that are already connected."""
    only(case, "weight", "alpha", "beta", "bn_training")
    alone = _srrl(case, 0.0)
    return case.option("alpha", 1.0) * alone + case.option("beta", case.option("weight", 1.0)) * (
        _srrl(case, 1.0) - alone
    )


def _srrl(case: Case, logit_weight: float) -> Tensor:
    if "student.logits" in case:
        return srrl_loss(
            case["student.features.0"],
            case["teacher.features.0"],
            case["student.logits"],
            case["teacher.logits"],
            logit_weight,
        )
    head = case["teacher.classifier.weight"], case["teacher.classifier.bias"]
    embedding = (
        case["teacher.embedding"]
        if "teacher.embedding" in case
        else case["teacher.features.0"].mean((2, 3))
    )
    teacher: Outputs = {"embedding": embedding, "head": head, "logits": case["teacher.logits"]}
    student: Outputs = (
        {"features": case.stages("student.features")}
        if "student.features.0" in case
        else {"embedding": case["student.embedding"]}
    )
    objective = SRRL(logit_weight, "batch")
    objective.resolve(student, teacher)
    objective.build(
        student, teacher | {"embedding": embedding.abs()}
    )  # the authors' connector ends in a ReLU
    parameters = {
        f"connector.{name.partition('.')[2]}": value for name, value in case.params().items()
    }
    return called(
        objective, parameters, student, teacher, {}, training=case.option("bn_training", True)
    )


def simkd(case: Case) -> tuple[Tensor, dict[str, Tensor]]:
    """The logits that the teacher's classifier gives are in the case too."""
    only(case, "factor", "bn_training")
    student: Outputs = {"features": case.stages("student.features")}
    teacher: Outputs = {"features": case.stages("teacher.features")}
    objective = SimKD(case.option("factor", 2), "batch")
    objective.build(
        student, {"features": tuple(stage.abs() for stage in teacher["features"])}
    )  # the authors' projector ends in a ReLU
    parameters = {
        f"adapters.0.body.{name}": value for name, value in case.params("transfer.").items()
    }
    training = case.option("bn_training", True)
    loss = called(objective, parameters, student, teacher, {}, training=training).mean()
    if "out.pred_logits" not in case:
        return loss, {}
    projector = {name.removeprefix("adapters.0."): value for name, value in parameters.items()}
    embedding = called(
        objective.adapters[0],
        projector,
        student["features"][objective.matched[0][0]],
        training=training,
    ).mean((2, 3))
    logits = F.linear(embedding, case["teacher.classifier.weight"], case["teacher.classifier.bias"])
    return loss, {"out.pred_logits": logits}


def called(
    module: nn.Module, parameters: dict[str, Tensor], *arguments: object, training: bool = True
) -> Tensor:
    """What a module gives with the case's parameters, whose buffers stay as they are."""
    module.double().train(training)
    held = {
        name: value.clone() if not value.requires_grad else value
        for name, value in parameters.items()
    }
    result: Tensor = torch.func.functional_call(module, held, arguments, strict=True)
    return result


ADAPTERS = {"semckd": semckd, "srrl": srrl, "simkd": simkd}
