"""Adapters for losses on correlations, neighbours and remembered samples."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.functional.divergences import kl_divergence
from instil.modules.memory import Queue
from instil.objectives.relations.compress import compress_loss
from instil.objectives.relations.correlation_congruence import (
    correlation_congruence_loss,
    neighbour_congruence_loss,
)
from instil.objectives.relations.hkd import hkd_loss
from instil.objectives.relations.irg import irg_graph_loss, irg_transform_loss
from instil.objectives.relations.seed import seed_loss
from instil.objectives.relations.sskd import sskd_contrastive_loss, sskd_transformed_loss
from tests.golden.cases import Case


def cc(case: Case) -> Tensor:
    """Squares (paper), their root (torchdistill), or products of neighbours (RepDistiller)."""
    student, teacher = case["student.embedding"], case["teacher.embedding"]
    kernel = case.option("type")
    if kernel is None and "delta" in case.formula:
        return neighbour_congruence_loss(student, teacher)
    if kernel not in ("bilinear", "gaussian"):
        raise NotImplementedError(f"kernel '{kernel}'")
    loss = correlation_congruence_loss(
        student,
        teacher,
        kernel,
        case.option("gamma", 0.4),
        case.option("max_p", 2),
        normalize=False,
    )
    squares = len(student) ** 2
    root = (loss * squares).sqrt() if case.mentions("not squared") else loss * squares
    return (
        root / squares
        if case.mentions("divided by N^2", "batchmean")
        and case.option("reduction", "batchmean") == "batchmean"
        else root
    )


def irg(case: Case) -> Tensor:
    """Graphs of the embeddings and of every other pair of neighbouring stages."""
    loss: Tensor = case.option("w_graph", 1) * irg_graph_loss(
        case["student.embedding"], case["teacher.embedding"]
    )
    pairs = list(itertools.pairwise(case.pairs()))[::2]
    for (student, teacher), (next_student, next_teacher) in pairs:
        sides = (student, next_student), (teacher, next_teacher)
        if case.option("no_edge_transform", False):
            raise NotImplementedError("the way of the vertices alone")
        loss = loss + case.option("w_transform", 1) * irg_transform_loss(*sides)
    return loss


def hkd(case: Case) -> Tensor:
    """One kernel per side, or the sum over stages of SemCKD with a constant first weight."""
    if "student.embedding" not in case:
        case.ignore("decay")  # the code never applies it
        weights = [case.option("init_weight", 100), *[1] * (len(case.pairs()) - 1)]
        return torch.stack(
            [
                weight * hkd_loss(student, teacher)
                for weight, (student, teacher) in zip(weights, case.pairs(), strict=True)
            ]
        ).sum()
    kernels = case.option("student", "cosine"), case.option("teacher", "cosine")
    if any(
        name in case.options
        for name in ("student_sigma", "teacher_sigma", "student_d", "teacher_d")
    ):
        raise NotImplementedError("a kernel of another scale or power than 1")
    divergence = case.option("loss", "kl")
    if "combined" in (*kernels, divergence):
        if kernels != ("combined", "combined") or divergence != "combined":
            raise NotImplementedError(f"kernels {kernels} with divergence '{divergence}'")
        divergence = "jeffreys"
    return hkd_loss(
        case["student.embedding"],
        case["teacher.embedding"],
        kernels[0],
        divergence,
        case.option("eps", 1e-6),
        kernels[1],
    )


def seed(case: Case) -> tuple[Tensor, dict[str, Tensor]]:
    case.ignore("K")
    teacher, rows = case["teacher.embedding"], case["queue"].T
    loss = seed_loss(
        case["student.embedding"], teacher, rows, case.option("t", 0.2), case.option("temp", 1e-4)
    )
    queue = Queue(len(rows), {"teacher": rows.shape[1]}, dtype=torch.float64)
    queue.teacher = rows.clone()
    queue.push(torch.arange(len(teacher)), {"teacher": F.normalize(teacher, dim=1)})
    return loss, {"out.queue_after": queue["teacher"].T} if "out.queue_after" in case else {}


def compress(case: Case) -> Tensor:
    """Two banks, or the bank of the teacher for both sides."""
    case.ignore("queue_size")
    teacher_bank = case["bank.teacher"]
    student_bank = case.arrays.get("bank.student", teacher_bank)
    return compress_loss(
        case["student.embedding"],
        case["teacher.embedding"],
        student_bank,
        teacher_bank,
        case.option("T", 0.04),
    )


def sskd(case: Case) -> tuple[Tensor, dict[str, Tensor]]:
    """SSKD on rows that are a sample followed by its views.

    Cross-entropy and KD use the samples only. If some views are excluded, the ties of rank are
    broken as in the case.
    """
    target = case["target"]
    names = ("student.logits", "teacher.logits", "student.projection", "teacher.projection")
    student, teacher, student_rows, teacher_rows = (
        case[name].view(len(target), -1, case[name].shape[1]) for name in names
    )
    views, selected = teacher.shape[1] - 1, {}
    for name, ratio in (
        ("tf", case.option("ratio_tf", 1.0)),
        ("ss", case.option("ratio_ss", 0.75)),
    ):
        index = case.arrays.get(f"out.distill_index_{name}")
        selected[name] = {
            "keep": ratio,
            "selected": None
            if index is None
            else torch.isin(torch.arange(views * len(target)), index),
        }
    temperature = case.option("kd_T", 4.0)
    kd = (
        kl_divergence(
            *((side[:, 0] / temperature).log_softmax(1) for side in (teacher, student))
        ).mean()
        * temperature**2
    )
    terms = {
        "ce": F.cross_entropy(student[:, 0], target),
        "kd": kd,
        "tf": sskd_transformed_loss(
            student[:, 1:], teacher[:, 1:], target, case.option("tf_T", 4.0), **selected["tf"]
        ),
        "ss": sskd_contrastive_loss(
            (student_rows[:, 0], student_rows[:, 1:]),
            (teacher_rows[:, 0], teacher_rows[:, 1:]),
            case.option("ss_T", 0.5),
            **selected["ss"],
        ),
    }
    weights = {"ce": 0.1, "kd": 0.9, "tf": 2.7, "ss": 10.0}
    loss = torch.stack(
        [case.option(f"{name}_weight", weights[name]) * term for name, term in terms.items()]
    ).sum()
    return loss, {f"loss.{name}": term for name, term in terms.items() if f"loss.{name}" in case}


ADAPTERS = {"cc": cc, "irg": irg, "hkd": hkd, "seed": seed, "compress": compress, "sskd": sskd}
