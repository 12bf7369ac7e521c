"""Adapters for losses on embeddings and feature maps with few parts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from instil.functional.directions import l2_normalize
from instil.objectives.features.cat_kd import cat_kd_loss
from instil.objectives.features.clip_self import clip_self_loss
from instil.objectives.features.distilhubert import distilhubert_loss
from instil.objectives.features.fgd import GlobalContext, box_masks, fgd_loss
from instil.objectives.features.podnet import podnet_loss
from instil.objectives.features.simreg import simreg_loss
from instil.objectives.features.wkd_feature import wkd_feature_loss
from instil.objectives.relations.cka import cka_loss
from instil.objectives.relations.dcd import dcd_loss
from instil.objectives.relations.itrd import itrd_correlation_loss, itrd_mutual_loss
from instil.objectives.relations.pixel_point_contrast import pixel_point_contrast_loss
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


def wkd_feature(case: Case) -> Tensor:
    maps = case["student.features"], case["teacher.features"]
    options = case.option("mean_cov_ratio"), case.option("grid"), case.option("eps")
    return wkd_feature_loss(*maps, "diagonal", *options)


def simreg(case: Case) -> Tensor:
    return simreg_loss(case["student.embedding"], case["teacher.embedding"])


def cka(case: Case) -> Tensor:
    if case.option("with_l2_norm"):
        raise NotImplementedError("kernels have no rows of unit length")
    # The code has minus the alignment.
    return cka_loss(case["student.embedding"], case["teacher.embedding"], centre=False) - 1


def clip_self(case: Case) -> Tensor:
    loss = clip_self_loss(case["student.regions"], case["teacher.regions"])
    return case.option("cosine_weight") * loss


def pixel_point_contrast(case: Case) -> Tensor:
    student, teacher = case["student.vectors"], case["teacher.vectors"]
    visible = torch.ones(len(student), dtype=torch.bool)
    return pixel_point_contrast_loss(student, teacher, visible, case.option("temperature"))


def distilhubert(case: Case) -> Tensor:
    weights = case.option("l2_weight"), case.option("l1_weight")
    if case.option("cos_type") != "log_sig" or weights != (0, 1):
        raise NotImplementedError("only the mean absolute difference and the log-sigmoid")
    student, teacher = (case[f"{side}.features"] for side in ("student", "teacher"))
    # All frames count once: the layers can stand side by side as recordings.
    layers = student.flatten(0, 1), teacher.flatten(0, 1)
    return distilhubert_loss(*layers, None, case.option("cos_weight"))


ADAPTERS = {
    "dcd": dcd,
    "itrd": itrd,
    "cat_kd": cat_kd,
    "podnet": podnet,
    "fgd": fgd,
    "wkd_feature": wkd_feature,
    "simreg": simreg,
    "cka": cka,
    "clip_self": clip_self,
    "pixel_point_contrast": pixel_point_contrast,
    "distilhubert": distilhubert,
}
