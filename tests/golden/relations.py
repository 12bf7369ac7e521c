"""Adapters for losses on relations between samples."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from instil.objectives.bases.contrast import scaled_similarities
from instil.objectives.relations.crd import CRD, crd_loss
from instil.objectives.relations.pkt import pkt_loss
from instil.objectives.relations.rkd import rkd_angle_loss, rkd_distance_loss
from instil.objectives.relations.similarity_preserving import similarity_preserving_loss
from tests.golden.cases import Case


def embeddings(case: Case) -> tuple[Tensor, Tensor]:
    return case["student.embedding"], case["teacher.embedding"]


def rkd(case: Case) -> Tensor:
    """Terms with a weight in the case; without weights, the term that the source names."""
    student, teacher = embeddings(case)
    if "w_d" in case.options or "w_a" in case.options:
        return case.option("w_d", 0) * rkd_distance_loss(student, teacher) + case.option(
            "w_a", 0
        ) * rkd_angle_loss(student, teacher)
    return (
        rkd_angle_loss(student, teacher)
        if "angle" in case.source.lower()
        else rkd_distance_loss(student, teacher)
    )


def sp(case: Case) -> Tensor:
    reduction = case.option("reduction", "batchmean")
    if reduction not in ("batchmean", "sum"):
        raise NotImplementedError(f"reduction '{reduction}'")
    norm = 1 if "p=1" in case.formula else 2
    loss = torch.stack(
        [similarity_preserving_loss(student, teacher, norm) for student, teacher in case.pairs()]
    ).sum()
    return loss * len(case.pairs()[0][0]) ** 2 if reduction == "sum" else loss


def pkt(case: Case) -> Tensor:
    return pkt_loss(*embeddings(case), epsilon=case.option("eps", 1e-7))


def crd(case: Case) -> tuple[Tensor, dict[str, Tensor]]:
    """Heads, memories and loss of the package on the rows of the case.

    Z is an option of the case or estimated from this batch.
    """
    samples, index, rows = case.option("n_data"), case["index"], case["sampled_index"]
    objective = CRD(
        case.option("feat_dim"),
        case.option("nce_k"),
        case.option("nce_t"),
        "bank",
        samples,
        case.option("nce_m"),
    ).double()
    student, teacher = ({"embedding": value} for value in embeddings(case))
    objective.build(student, teacher)
    memory = objective.remembered
    memory.student, memory.teacher = case["memory_v1"].clone(), case["memory_v2"].clone()
    for side, name in (("student", "embed_s"), ("teacher", "embed_t")):
        head = getattr(objective.connection, side)
        for part in ("weight", "bias"):
            delattr(head, part)
            setattr(head, part, case.param(f"{name}.linear.{part}"))
    normalizer = case.option("Z")
    terms, normalisers = [], []
    for i, (query, side) in enumerate(
        zip(objective.embed(student, teacher), ("teacher", "student"), strict=True)
    ):
        scores = scaled_similarities(query, memory[side].clone(), case.option("nce_t"))
        scores = scores.gather(1, rows)
        log_z = (
            math.log(normalizer[i])
            if isinstance(normalizer, list)
            else math.log(samples) + scores.detach().exp().mean().log()
        )
        normalisers.append(torch.as_tensor(log_z, dtype=torch.float64).exp())
        terms.append(
            crd_loss(scores[:, 0], scores[:, 1:], samples, log_z, case.option("eps", 1e-7))
        )
    with torch.no_grad():
        objective.after_step(objective.state_updates(student, teacher, {"index": index}))
    after = {
        "out.memory_v1_after": memory["student"],
        "out.memory_v2_after": memory["teacher"],
        "out.Z": torch.stack(normalisers),
    }
    return torch.stack(terms).sum(), {name: value for name, value in after.items() if name in case}


ADAPTERS = {"rkd": rkd, "sp": sp, "pkt": pkt, "crd": crd}
