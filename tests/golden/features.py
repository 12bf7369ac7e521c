"""Adapters for losses on feature maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.objectives.features.attention_transfer import attention_transfer_loss
from instil.objectives.features.fitnet import fitnet_loss
from instil.objectives.features.review_kd import AttentionFusion, hcl_loss
from instil.objectives.features.vid import Regressor, vid_loss
from tests.golden.cases import Case


def at(case: Case) -> Tensor:
    """Both forms of attention transfer; odd powers without an absolute value are another method."""
    power = float(case.option("p", 2))
    form = (
        "paper"
        if case.mentions("l2 norm over positions", "unsquared") or case.option("mode") == "paper"
        else "code"
    )
    pairs = case.pairs()
    weights = case.option("weights", [1.0] * len(pairs))
    if power % 2 and any((tensor < 0).any() for pair in pairs for tensor in pair):
        raise NotImplementedError(
            f"signed features to the power {power:g}: this package uses absolute values"
        )
    return torch.stack(
        [
            w * attention_transfer_loss(s, t, power, form)
            for w, (s, t) in zip(weights, pairs, strict=True)
        ]
    ).sum()


def fitnet(case: Case) -> Tensor:
    """Every stage passes the regressor of the case, if any: convolution, BatchNorm, ReLU."""
    return torch.stack(
        [
            fitnet_loss(regressed(case, student, teacher), teacher)
            for student, teacher in case.pairs()
        ]
    ).sum()


def regressed(case: Case, student: Tensor, teacher: Tensor) -> Tensor:
    if "param.conv.weight" not in case:
        return student
    weight, bias = case.param("conv.weight"), case.arrays.get("param.conv.bias")
    before, after = student.shape[-1], teacher.shape[-1]
    if before == 2 * after:
        stage = F.conv2d(student, weight, bias, stride=2, padding=1)
    elif before * 2 == after:
        stage = F.conv_transpose2d(student, weight, bias, stride=2, padding=1)
    else:
        stage = F.conv2d(student, weight, bias)
    if "param.bn.weight" in case:
        mean, var = case.param("bn.running_mean").clone(), case.param("bn.running_var").clone()
        training = case.option("bn_training", True)
        stage = F.batch_norm(
            stage, mean, var, case.param("bn.weight"), case.param("bn.bias"), training, eps=1e-5
        )
    return stage.relu() if case.option("use_relu", True) else stage


def vid(case: Case) -> Tensor:
    case.ignore("num_input_channels", "num_mid_channel", "num_target_channels")
    (student, teacher), parameters = case.pairs()[0], case.params()
    target, middle, source = (
        parameters[f"regressor.{n}.weight"].shape[i] for n, i in ((4, 0), (0, 0), (0, 1))
    )
    grid = [min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True)]
    student, teacher = F.adaptive_avg_pool2d(student, grid), F.adaptive_avg_pool2d(teacher, grid)
    regressor = Regressor(source, middle, target, case.option("init_pred_var", 5.0)).double()
    mean, variance = torch.func.functional_call(regressor, parameters, (student,))
    return vid_loss(mean, teacher, variance + case.option("eps", 1e-5))


def reviewkd(case: Case) -> Tensor:
    case.ignore("in_channels", "out_channels", "shapes")
    levels = tuple(case.option("levels", (4, 2, 1)))
    pairs = case.pairs()
    if "student.embedding" in case:
        pairs.append(
            (
                case["student.embedding"][:, :, None, None],
                case["teacher.embedding"][:, :, None, None],
            )
        )
    if not case.params("abfs."):
        return torch.stack([hcl_loss(student, teacher, levels) for student, teacher in pairs]).sum()
    residual, terms = None, []
    for index, (student, teacher) in enumerate(reversed(pairs)):
        official = case.params(f"abfs.{index}.")
        renamed = {
            renames(name): value.clone() if "running" in name or "num_" in name else value
            for name, value in official.items()
        }
        middle, source = official["conv1.0.weight"].shape[:2]
        fusion = AttentionFusion(
            source, middle, teacher.shape[1], "att_conv.0.weight" in official, nn.BatchNorm2d
        ).double()
        fusion.train(case.option("bn_training", True))
        fused, residual = torch.func.functional_call(
            fusion, renamed, (student, residual, tuple(teacher.shape[2:]))
        )
        terms.append(hcl_loss(fused, teacher, levels))
    return torch.stack(terms).sum()


def renames(official: str) -> str:
    """Return the names of the parameters of a fusion in the package by their official name."""
    part, _, rest = official.partition(".")
    return f"{ {'conv1': 'reduce', 'conv2': 'expand', 'att_conv': 'attend'}[part] }.{rest}"


ADAPTERS = {"at": at, "fitnet": fitnet, "vid": vid, "reviewkd": reviewkd}
