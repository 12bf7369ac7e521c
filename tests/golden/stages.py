"""Adapters for losses that learn to compare the stages of two networks."""

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
    """Raise NotImplementedError if the case has an option that the adapter does not read."""
    if unknown := sorted(set(case.options) - set(names)):
        raise NotImplementedError(f"option {unknown[0]} of {case.method}")


def semckd(case: Case) -> Tensor:
    """Both versions of the authors' code, which name their parameters differently.

    The later one has unused regressors in the embeddings.
    """
    only(case, "factor", "soft", "bn_training")
    student: Outputs = {"features": case.stages("student.features")}
    teacher: Outputs = {"features": case.stages("teacher.features")}
    objective = SemCKD("batch", case.option("factor", 4), case.option("soft", 1.0), "batch")
    objective.build(student, teacher)
    parameters: dict[str, Tensor] = {}
    for index, (i, j) in enumerate(objective.matched):
        parameters |= {
            f"adapters.{index}.{name}": value
            for name, value in case.params(f"regressor{i}{j}.regressor.").items()
        }
    for prefix, officials, side in (
        ("queries", ("query_weight{}", "query_{}"), student),
        ("keys", ("key_weight{}", "key_{}"), teacher),
    ):
        for index in range(len(side["features"])):
            for layer, linear in (("first", "linear1"), ("second", "linear2")):
                state = next(
                    p
                    for p in (case.params(f"{name.format(index)}.{linear}.") for name in officials)
                    if p
                )
                parameters |= {
                    f"{prefix}.{index}.{layer}.{name}": value for name, value in state.items()
                }
    return called(
        objective, parameters, student, teacher, {}, training=case.option("bn_training", True)
    ).mean()


def srrl(case: Case) -> Tensor:
    """With the connector of the case, or on maps that are connected already."""
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
    """The case also contains the logits of the teacher's classifier."""
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
    """Return the outputs of a module with the parameters of the case; buffers do not change."""
    module.double().train(training)
    held = {
        name: value.clone() if not value.requires_grad else value
        for name, value in parameters.items()
    }
    result: Tensor = torch.func.functional_call(module, held, arguments, strict=True)
    return result


ADAPTERS = {"semckd": semckd, "srrl": srrl, "simkd": simkd}
