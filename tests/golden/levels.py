"""Adapters for losses on embeddings and feature maps with few parts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from instil.functional.directions import l2_normalize
from instil.objectives.features.cat_kd import cat_kd_loss
from instil.objectives.features.fgd import GlobalContext, box_masks, fgd_loss
from instil.objectives.features.podnet import podnet_loss
from instil.objectives.relations.dcd import dcd_loss
from instil.objectives.relations.itrd import itrd_correlation_loss, itrd_mutual_loss
from tests.golden.cases import Case


def linear(case: Case, name: str, values: Tensor) -> Tensor:
    """Output of a linear layer of the case."""
    return values @ case.param(f"{name}.weight").T + case.param(f"{name}.bias")


def dcd(case: Case) -> Tensor:
    student = linear(case, "embed_s", case["student.embedding"])
    teacher = linear(case, "embed_t", case["teacher.embedding"])
    scale = case.param("params.tau").exp().clamp_max(case.option("max_tau"))
    embeddings = l2_normalize(student), l2_normalize(teacher)
    return dcd_loss(*embeddings, scale, case.param("params.b"), case.option("alpha"))


def itrd(case: Case) -> Tensor:
    student, teacher = case["student.embedding"], case["teacher.embedding"]
    projected = linear(case, "embed.linear", student)
    same_width = student.shape == teacher.shape
    correlation = itrd_correlation_loss(projected, teacher, case.option("alpha"))
    mutual = itrd_mutual_loss(student if same_width else projected, teacher)
    return case.option("correlation") * correlation + case.option("mutual") * mutual


def cat_kd(case: Case) -> Tensor:
    maps = case["student.maps"], case["teacher.maps"]
    return cat_kd_loss(*maps, case.option("resolution"), case.option("normalize"))


def podnet(case: Case) -> Tensor:
    if case.option("collapse_channels") != "spatial" or not case.option("normalize"):
        raise NotImplementedError("only the normalised spatial form is offered")
    return torch.stack([podnet_loss(*pair) for pair in case.pairs()]).mean()


def fgd(case: Case) -> Tensor:
    student, teacher = case["student.features"], case["teacher.features"]
    masks = box_masks(case["boxes"], tuple(student.shape[2:]))
    weights = case.option("alpha_fgd"), case.option("beta_fgd"), case.option("gamma_fgd")
    focal = fgd_loss(student, teacher, *masks, case.option("temperature"), weights)
    contexts = [context(case, side, values) for side, values in (("s", student), ("t", teacher))]
    squares = (contexts[0] - contexts[1]).square().flatten(1).sum(1)
    return focal + case.option("lambda_fgd") * squares.mean()


def context(case: Case, side: str, values: Tensor) -> Tensor:
    """Features with the global context of one side."""
    add = {f"add.{name}": value for name, value in case.params(f"channel_add_conv_{side}.").items()}
    for name in ("weight", "bias"):
        add[f"add.1.{name}"] = add[f"add.1.{name}"].flatten()
    parameters = add | {"attend.weight": case.param(f"conv_mask_{side}.weight")}
    block = GlobalContext(values.shape[1]).double()
    expected = block.state_dict()
    shaped = {name: value.view_as(expected[name]) for name, value in parameters.items()}
    result: Tensor = functional_call(block, shaped, (values,), strict=True)
    return result


ADAPTERS = {"dcd": dcd, "itrd": itrd, "cat_kd": cat_kd, "podnet": podnet, "fgd": fgd}
