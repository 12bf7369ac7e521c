"""Adapters for knowledge adaptation and for transport between ranked tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import UNLABELLED
from instil.objectives.features.kta import kta_affinity_loss, kta_loss
from instil.objectives.logits.multilevel_ot import sequence_transport, unit_deviation
from tests.golden.cases import Case

RANKS = 50


def kta(case: Case) -> Tensor:
    """Form of torchdistill; a sum of absolute differences is taken over all entries."""
    p, q = float(case.option("p", 1)), float(case.option("q", 2))
    is_sum = case.option("reduction", "mean") == "sum"
    total = torch.zeros((), dtype=torch.float64)
    for student, teacher in case.pairs():
        values = kta_loss(student, teacher, p, q, "none")
        size = student[0].numel() if p == 1 else 1
        total = total + (values.sum() * size if is_sum else values.mean())
    return total


def kta_affinity(case: Case) -> Tensor:
    """Form of torchdistill, with affinities of channels."""
    is_sum = case.option("reduction", "mean") == "sum"
    total = torch.zeros((), dtype=torch.float64)
    for student, teacher in case.pairs():
        values = kta_affinity_loss(student, teacher, "channels", "none")
        total = total + (values.sum() if is_sum else values.mean())
    return total


def answer_probs(case: Case, side: str) -> tuple[Tensor, list[int]]:
    """Return probabilities (N, T, V) of the answers, 0 after their ends, and their lengths."""
    logits = unit_deviation(case[f"{side}.logits"])
    logits = logits / case.option(f"{side}_temperature", 1.0)
    target = case["target" if side == "student" else "teacher.target"]
    skipped = int(bool(case.option(f"skip_{side}_eos", False)))
    rows, lengths = [], []
    for row, labels in zip(logits, target, strict=True):
        labelled = labels != UNLABELLED
        length = int(labelled.sum()) - skipped
        # Position t predicts token t + 1; an answer without a prompt starts at its own beginning.
        start = max(int(labelled.int().argmax()) - 1, 0)
        probs = row[start : start + length].softmax(-1)
        rows.append(F.pad(probs, (0, 0, 0, len(row) - length)))
        lengths.append(length)
    return torch.stack(rows), lengths


def batch_ranked(probs: Tensor, length: int) -> Tensor:
    """Return the most likely classes of the batch, (N, length, K), ranked as in the code."""
    probs = F.pad(probs, (0, 0, 0, max(length - probs.shape[1], 0)))[:, :length]
    index = probs.detach().sum((0, 1)).topk(min(RANKS, probs.shape[-1])).indices
    return probs[..., index]


def multilevel_ot(case: Case) -> Tensor:
    """Form of the code: ranks of the batch, softmax of ranked probabilities and padding."""
    if case.option("f", 1) != 1:
        raise NotImplementedError("greedy assignment of the student's ranks")
    (student, student_lengths), (teacher, teacher_lengths) = (
        answer_probs(case, side) for side in ("student", "teacher")
    )
    length = max(*student_lengths, *teacher_lengths)
    student, teacher = batch_ranked(student, length), batch_ranked(teacher, length)
    size = max(student.shape[-1], teacher.shape[-1])
    student, teacher = (F.pad(side, (0, size - side.shape[-1])) for side in (student, teacher))
    shorter = map(min, student_lengths, teacher_lengths)
    differences = (student - teacher).abs().sum(-1)
    holistic = [row[:end].mean() for row, end in zip(differences, shorter, strict=True)]
    crossed = -(student.softmax(-1) * teacher.log_softmax(-1)).sum(-1).mean()
    everywhere = torch.ones(student.shape[:2], dtype=torch.bool)
    softer = (teacher / 2).softmax(-1), (student / 2).softmax(-1)
    moved = sequence_transport(*softer, everywhere, 0.1, 10).sum()
    total = torch.stack(holistic).mean() + 0.1 * crossed + 0.1 * 0.001 * moved
    total = case.option("distillation_weight", 1.0) * total
    if weight := case.option("crossentropy_weight", 0.0):
        logits, target = case["student.logits"][:, :-1], case["target"][:, 1:]
        labelled = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=UNLABELLED)
        total = total + weight * labelled
    return total


ADAPTERS = {"kta": kta, "kta_affinity": kta_affinity, "multilevel_ot": multilevel_ot}
