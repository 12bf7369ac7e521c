"""Comparison of samples with anchors: the last unit vectors of earlier samples."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from instil.core import Batch, Outputs
from instil.functional.directions import l2_normalize, pairwise_dot
from instil.functional.divergences import soft_cross_entropy
from instil.functional.feature_maps import require_dims
from instil.modules.memory import Queue
from instil.objectives.bases.relation_objective import RelationObjective


def anchor_queue(
    objective: RelationObjective,
    size: int,
    sides: Iterable[str],
    student: Outputs,
    teacher: Outputs,
) -> Queue:
    """Queue for the anchors of some sides, from a dry batch.

    Anchors that were not written yet are random and equal for both sides.

    Args:
        objective: the loss, whose connection has been built.
        size: number of anchors.
        sides: sides whose vectors are anchors.
        student: student outputs.
        teacher: teacher outputs.
    """
    vectors = _vectors(objective, student, teacher)
    widths = {side: vectors[side].shape[1] for side in sides}
    device, dtype = vectors["student"].device, vectors["student"].dtype
    return Queue(size, widths, device=device, dtype=dtype)


def anchor_rows(
    objective: RelationObjective,
    sides: Iterable[str],
    student: Outputs,
    teacher: Outputs,
    batch: Batch,
) -> dict[str, Tensor]:
    """Rows of one step for ``push_anchors``.

    Args:
        objective: the loss.
        sides: sides whose vectors are anchors.
        student: student outputs.
        teacher: teacher outputs.
        batch: batch of the step.
    """
    vectors = _vectors(objective, student, teacher)
    rows = {"counts": objective.weight(batch) > 0}
    for side in sides:
        rows[side] = l2_normalize(vectors[side])
    return rows


def push_anchors(queue: Queue, sides: Iterable[str], gathered_rows: dict[str, Tensor]) -> None:
    """Push the vectors of the step into the queue, which drops the oldest.

    Args:
        queue: result of ``anchor_queue``.
        sides: sides whose vectors are anchors.
        gathered_rows: rows of ``anchor_rows`` of all micro-batches and processes, or none.
    """
    if gathered_rows:
        rows = {side: gathered_rows[side][gathered_rows["counts"]] for side in sides}
        queue.push(None, rows)


def _vectors(objective: RelationObjective, student: Outputs, teacher: Outputs) -> dict[str, Tensor]:
    student_vectors, teacher_vectors = objective.embed(student, teacher)
    return {"student": student_vectors, "teacher": teacher_vectors}


def anchor_cross_entropy(
    student_embedding: Tensor,
    teacher_embedding: Tensor,
    queue: Tensor,
    temperature: float,
    teacher_temperature: float,
) -> Tensor:
    """Cross-entropy (N,) of the softmax similarities to the own teacher embedding and the queue.

    Args:
        student_embedding: (N, D).
        teacher_embedding: (N, D).
        queue: unit teacher embeddings (K, D) of other samples.
        temperature: divisor of the student's cosines, > 0.
        teacher_temperature: divisor of the teacher's cosines, > 0.
    """
    require_dims(student_embedding, 2, "student_embedding")
    student_units = l2_normalize(student_embedding)
    teacher_units = l2_normalize(teacher_embedding)
    anchors = queue.to(student_units.dtype)
    scores = []
    for units in (student_units, teacher_units):
        # The sample's own teacher embedding is not in the queue yet.
        own_score = (units * teacher_units).sum(1, keepdim=True)
        scores.append(torch.cat([own_score, pairwise_dot(units, anchors)], 1))
    return soft_cross_entropy(scores[0] / temperature, scores[1] / teacher_temperature)
