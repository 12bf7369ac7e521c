"""Adapters for losses that recover images from a teacher."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from instil.functional.image_contrast import bank_contrastive_loss, view_contrastive_loss
from instil.functional.image_priors import image_norm, total_variation
from instil.modules.batch_statistics import BatchNormStatistics, bn_statistics_loss, channel_moments
from instil.schemes.bases.inversion import decision_adversarial_loss
from instil.schemes.data_free.deep_inversion import competition
from tests.golden.cases import Case
from tests.golden.logits import Answer, temperature


def statistics(case: Case) -> list[BatchNormStatistics]:
    inputs = case.stages("bn_input")
    running = [
        tuple(case[f"bn.{index}.running_{name}"] for name in ("mean", "var"))
        for index in range(len(inputs))
    ]
    return [
        BatchNormStatistics(*channel_moments(values), *statistics, values)
        for values, statistics in zip(inputs, running, strict=True)
    ]


def deepinversion(case: Case) -> Answer:
    if "images" in case:
        image = case["images"]
        parts = {
            "part.tv_l1": total_variation(image, 1).mean(),
            "part.tv_l2": total_variation(image, 2, per="batch"),
            "part.l2": image_norm(image).mean(),
        }
        loss = torch.stack(
            [case.option(name.removeprefix("part."), 0.0) * value for name, value in parts.items()]
        ).sum()
        return loss, {name: value for name, value in parts.items() if name in case}
    if "bn_input.0" in case:
        read = statistics(case)
        first = case.option("first_bn_multiplier", 1.0)
        return bn_statistics_loss(read, first), {
            "part.layers": torch.stack([bn_statistics_loss([one]) for one in read])
        } if "part.layers" in case else {}
    return competition(
        case["student.logits"], case["teacher.logits"], temperature(case), "code"
    ), {}


def cmi(case: Case) -> Answer:
    if "projected_local" in case:
        loss = bank_contrastive_loss(
            case["projected_local"],
            case["projected_global"],
            case.option("batch"),
            case.option("temperature"),
        )
        return case.option("cr", 1.0) * loss, {}
    if "local_features" in case:
        anchors = case.option("contrast_mode", "all")
        if anchors not in ("all", "one"):
            raise NotImplementedError(f"contrast_mode: {anchors}")
        loss = view_contrastive_loss(
            case["local_features"],
            case["global_features"],
            case.option("temperature"),
            case.option("base_temperature"),
        )
        # With "one" only the first views are anchors in the code.
        return (loss.mean() if anchors == "all" else loss[: len(loss) // 2].mean()), {}
    teacher, student = case["teacher.logits"], case["student.logits"]
    parts = {
        "part.oh": F.cross_entropy(teacher, case["target"]),
        "part.adv": decision_adversarial_loss(student, teacher).mean(),
    }
    loss = case.option("oh") * parts["part.oh"] + case.option("adv") * parts["part.adv"]
    return loss, {name: value for name, value in parts.items() if name in case}


ADAPTERS = {"deepinversion": deepinversion, "cmi": cmi}
