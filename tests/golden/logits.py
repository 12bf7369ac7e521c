"""Adapters for losses on labels and logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from instil.core import UNLABELLED
from instil.functional.logits import standardize
from instil.objectives.labels.cross_entropy import cross_entropy_loss
from instil.objectives.labels.label_smoothing import label_smoothing_loss
from instil.objectives.logits.dist import dist_loss
from instil.objectives.logits.dkd import dkd_loss
from instil.objectives.logits.kd import kd_loss
from instil.objectives.logits.logit_mse import logit_mse_loss
from instil.objectives.logits.nkd import nkd_loss
from tests.golden.cases import Case

Answer = tuple[Tensor, dict[str, Tensor]]


def logits(case: Case) -> tuple[Tensor, Tensor]:
    """Return student and teacher logits (..., C); classes of (N, C, H, W) are moved to the end."""
    student, teacher = case["student.logits"], case["teacher.logits"]
    return (
        (student.movedim(1, -1), teacher.movedim(1, -1))
        if student.ndim == 4
        else (student, teacher)
    )


def temperature(case: Case) -> float:
    for name in ("temperature", "tau", "T"):
        if name in case.options:
            return float(case.options[name])
    return 1.0


def scaled(case: Case) -> bool:
    """Whether the case multiplies by T²."""
    return not case.mentions("no t^2", "no tau^2", "without t^2", "without tau^2")


def total(case: Case, values: Tensor, classes: int) -> Tensor:
    """Sum or average values of items as in the case."""
    reduction = case.option("reduction")
    if reduction not in (None, "mean", "batchmean", "sum"):
        raise NotImplementedError(f"reduction '{reduction}'")
    if reduction == "sum":
        return values.sum()
    if reduction == "batchmean" or (reduction is None and case.mentions("first dimension")):
        return values.sum() / values.shape[0]
    if reduction == "mean" or case.mentions(
        "n and classes", "n*c", "n*t*v", "over all elements", "element-wise", "elementwise"
    ):
        return values.mean() / classes
    return values.mean()


def with_labels(case: Case, soft: Tensor, label_weight: float, soft_weight: float) -> Answer:
    """Weighted soft term plus weighted cross-entropy, and both parts if the case has them."""
    label = label_weight * cross_entropy_loss(logits(case)[0], case["target"])
    parts = {"part.ce": label, "part.kd": soft_weight * soft, "part.dkd": soft_weight * soft}
    return label + soft_weight * soft, {
        name: value for name, value in parts.items() if name in case
    }


def distilled(case: Case, student: Tensor, teacher: Tensor) -> Answer:
    if case.option("reverse", False):
        student, teacher = teacher, student
    values = kd_loss(student, teacher, temperature(case), scaled(case), reduction="none")
    soft = total(case, values, student.shape[-1]) * case.option("loss_weight", 1.0)
    if "target" in case:
        alpha = case.option("alpha")
        label_weight, soft_weight = (1.0, 1.0) if alpha is None else (1 - alpha, alpha)
        label_weight = case.option("ce_weight", case.option("gamma", label_weight))
        return with_labels(case, soft, label_weight, case.option("kd_weight", soft_weight))
    if "per_token" in case:
        return soft, {"per_token": values if values.shape == case["per_token"].shape else values.mT}
    return soft, {}


def kd(case: Case) -> Answer:
    return distilled(case, *logits(case))


def decoupled(case: Case, student: Tensor, teacher: Tensor) -> Answer:
    values = dkd_loss(
        student,
        teacher,
        case["target"],
        case.option("alpha", 1.0),
        case.option("beta", 8.0),
        temperature(case),
        "none",
    )
    if not scaled(case):
        values = values / temperature(case) ** 2
    labelled = case["target"] != UNLABELLED
    soft = values.mean() if case.mentions("all tokens") else values.sum() / labelled.sum()
    if "warmup" in case.options:
        soft = soft * min(case.option("epoch") / case.option("warmup"), 1.0)
    return (
        with_labels(case, soft, case.option("ce_weight"), 1.0)
        if "ce_weight" in case.options
        else (soft, {})
    )


def dkd(case: Case) -> Answer:
    return decoupled(case, *logits(case))


def logit_std(case: Case) -> Answer:
    student, teacher = (standardize(values) for values in logits(case))
    loss = case.source.rpartition("::")[2]
    if "dkd" in loss.lower() or "DKD.py" in case.source:
        return decoupled(case, student, teacher)
    if "MLKD" in case.source or "CTKD" in case.source:
        raise NotImplementedError(f"standardized logits in {case.source}")
    return distilled(case, student, teacher)


def nkd(case: Case) -> Tensor:
    return nkd_loss(*logits(case), case["target"], temperature(case), case.option("gamma", 1.5))


def dist(case: Case) -> Tensor:
    softness = temperature(case)
    if case.mentions("no temperature"):
        softness = 1.0
    epsilon = (
        0.0 if "torchdistill" in case.source else 1e-8
    )  # the cosine similarity of torch clamps instead of adding
    return dist_loss(
        *logits(case),
        case.option("beta", 1.0),
        case.option("gamma", 1.0),
        softness,
        scaled(case),
        epsilon,
    )


def logit_mse(case: Case) -> Tensor:
    return regression(case, smooth=False)


def logit_smooth_l1(case: Case) -> Tensor:
    return regression(case, smooth=True)


def regression(case: Case, smooth: bool) -> Tensor:
    if case.option("beta", 1.0) != 1.0:
        raise NotImplementedError(f"smooth L1 with beta {case.option('beta')}")
    student, teacher = logits(case)
    classes = student.shape[-1]
    loss = total(case, logit_mse_loss(student, teacher, smooth, "none") * classes, classes)
    return loss / 2 if case.mentions("1/2", "half") else loss


def label_smoothing(case: Case) -> Tensor:
    others_only = "(C-1)" in case.formula or case.mentions("(c-1)")
    return label_smoothing_loss(
        case["student.logits"], case["target"], case.option("smoothing", 0.1), others_only
    )


def peer_divergence(case: Case, peer: Tensor, other: Tensor) -> Tensor:
    """KL from another peer; some code adds 1e-7 to its probabilities without normalising."""
    t = temperature(case)
    if "+1e-7" not in case.formula:
        return kd_loss(peer, other, t, scaled(case))
    raised = (other / t).softmax(-1) + 1e-7
    mass = 1 + 1e-7 * peer.shape[-1]
    return mass * (
        kd_loss(peer, raised.log() * t, t, scaled(case))
        + math.log(mass) * (t**2 if scaled(case) else 1)
    )


def dml(case: Case) -> Answer:
    """Label loss of each peer, and KL from each other peer or from the mean of their logits."""
    peers = [
        case[f"students.{index}.logits"]
        for index in range(sum(name.startswith("students.") for name in case.arrays))
    ]
    updated = [case.option("updated_peer")] if "updated_peer" in case.options else range(len(peers))
    label, divergence = 0 * peers[0].sum(), 0 * peers[0].sum()
    for index in updated:
        others = [peer for other, peer in enumerate(peers) if other != index]
        if case.mentions("mean logits"):
            others = [torch.stack(others).mean(0)]
        label = label + cross_entropy_loss(peers[index], case["target"])
        terms = torch.stack([peer_divergence(case, peers[index], other) for other in others])
        divergence = divergence + terms.mean()
    # The alternating code stores the sum over the other peers and adds the mean.
    whole = terms.sum() if "updated_peer" in case.options else divergence
    outputs = {"part.ce": label, "part.kl": whole}
    return label + divergence, {name: value for name, value in outputs.items() if name in case}


ADAPTERS = {
    "kd": kd,
    "dkd": dkd,
    "logit_std": logit_std,
    "nkd": nkd,
    "dist": dist,
    "logit_mse": logit_mse,
    "logit_smooth_l1": logit_smooth_l1,
    "label_smoothing": label_smoothing,
    "dml": dml,
}
