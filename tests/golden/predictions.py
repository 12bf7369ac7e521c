"""Adapters for losses on predictions: refined or rescaled logits, positions, rankings and masks."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.functional.logits import standardize
from instil.objectives.features.ofa import ofa_loss
from instil.objectives.logits.dino import dino_loss
from instil.objectives.logits.dwpose import dwpose_loss
from instil.objectives.logits.edge_sam import edge_sam_loss
from instil.objectives.logits.kd_detr import kd_detr_loss
from instil.objectives.logits.localisation_distillation import localisation_distillation_loss
from instil.objectives.logits.normkd import normkd_loss
from instil.objectives.logits.relaxed_ranking import relaxed_ranking_loss
from instil.objectives.logits.rld import rld_loss
from instil.objectives.logits.sinkd import sinkd_loss
from instil.objectives.logits.sparse_soft_labels import (
    RecoveryForm,
    recover_labels,
    sparse_soft_labels_loss,
)
from instil.objectives.logits.spherical_kd import spherical_kd_loss
from instil.objectives.logits.wkd_logit import wkd_logit_loss
from tests.golden.cases import Case
from tests.golden.logits import logits, temperature

RECOVERY_FORMS: dict[str, RecoveryForm] = {
    "marginal_smoothing_k5": "smoothing",
    "marginal_renorm": "renormalize",
}


def rld(case: Case) -> Tensor:
    student, teacher = logits(case)
    if case.option("logit_stand"):
        student, teacher = standardize(student), standardize(teacher)
    weights = case.option("alpha"), case.option("beta")
    return rld_loss(student, teacher, case["target"], *weights, temperature(case))


def normkd(case: Case) -> Tensor:
    return normkd_loss(*logits(case), case.option("t_norm"))


def sinkd(case: Case) -> Tensor:
    student, teacher = logits(case)
    options = case.option("epsilon"), case.option("iterations")
    loss = sinkd_loss(student, teacher, temperature(case), *options)
    # The code has the sum over the batch.
    return case.option("factor") * len(student) * loss


def ofa(case: Case) -> Tensor:
    options = case.option("eps"), temperature(case)
    return ofa_loss(*logits(case), case["target"], *options)


def dwpose(case: Case) -> Tensor:
    sharpness = case.option("beta")
    terms = [
        dwpose_loss(case[f"student.{axis}_logits"], case[f"teacher.{axis}_logits"], sharpness)
        for axis in ("x", "y")
    ]
    return case.option("weight") * torch.stack(terms).sum()


def relaxed_ranking(case: Case) -> Tensor:
    interesting, uninteresting = case["student.interesting"], case["student.uninteresting"]
    return relaxed_ranking_loss(interesting, uninteresting, "none").sum()


def edge_sam(case: Case) -> Tensor:
    masks = case["student.masks"].unsqueeze(1), case["teacher.masks"].unsqueeze(1)
    is_hard = not case.option("use_teacher_logits")
    return edge_sam_loss(*masks, case.option("bce"), case.option("dice"), is_hard)


def localisation_distillation(case: Case) -> Tensor:
    student, teacher = logits(case)
    edges = case.option("edges")
    values = localisation_distillation_loss(student, teacher, edges, case.option("T"), "none")
    factor = case.option("loss_weight") / case.option("avg_factor")
    # The code has the mean over the bins.
    return factor * (values * case["weight"]).sum() * edges / student.shape[-1]


def wkd_logit(case: Case) -> Tensor:
    options = case.option("gamma"), case.option("sinkhorn_lambda"), case.option("sinkhorn_iter")
    return wkd_logit_loss(*logits(case), case["target"], case["cost"], temperature(case), *options)


def sparse_soft_labels(case: Case) -> Tensor:
    student, teacher = logits(case)
    form, k = RECOVERY_FORMS[case.option("soft_label_type")], case.option("topk")
    target = recover_labels(teacher.softmax(1), k, form)
    # The code has the cross-entropy: it includes the entropy of the labels.
    entropy = -torch.xlogy(target, target).sum(1).mean()
    return sparse_soft_labels_loss(student, teacher, k, form) + entropy


def spherical_kd(case: Case) -> Tensor:
    return spherical_kd_loss(*logits(case), case.option("multiplier"), temperature(case))


def dino(case: Case) -> Tensor:
    views = case["student.view_logits"], case["teacher.view_logits"]
    temperatures = case.option("student_temp"), case.option("teacher_temp")
    return dino_loss(*views, case["centre"], *temperatures)


def kd_detr(case: Case) -> Tensor:
    student, teacher = logits(case)
    boxes = case["student.boxes"], case["teacher.boxes"]
    classes, distance, overlap = case.option("weights")
    terms = [
        kd_detr_loss(student, teacher, *boxes, True, weights, case.option("T"))
        for weights in ((classes, 0.0, 0.0), (0.0, distance, overlap))
    ]
    # The code has the sum over the points, not the mean, for the classes.
    return teacher.sigmoid().amax(-1).sum() * terms[0] + terms[1]


ADAPTERS = {
    "rld": rld,
    "normkd": normkd,
    "sinkd": sinkd,
    "ofa": ofa,
    "dwpose": dwpose,
    "relaxed_ranking": relaxed_ranking,
    "edge_sam": edge_sam,
    "localisation_distillation": localisation_distillation,
    "wkd_logit": wkd_logit,
    "spherical_kd": spherical_kd,
    "sparse_soft_labels": sparse_soft_labels,
    "dino": dino,
    "kd_detr": kd_detr,
}
