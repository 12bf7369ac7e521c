"""Contrast with a memory of both sides' embeddings."""

from __future__ import annotations

import math
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import Batch, Outputs, to_float32
from instil.functional.directions import pairwise_dot
from instil.functional.feature_maps import require_dims
from instil.modules.memory import Bank, Memory, Queue
from instil.objectives.bases.relation_objective import RelationObjective

MEMORIES = ("queue", "bank", "batch")
"""Sources of the negatives."""


def contrast_values(
    positive: Tensor,
    negative: Tensor,
    num_samples: int,
    log_normaliser: float | Tensor,
    epsilon: float = 1e-7,
) -> Tensor:
    """Noise-contrastive loss (N,) of a positive among K negatives.

    Args:
        positive: similarity over temperature of each sample with its partner, (N,).
        negative: similarities over temperature with K other samples, (N, K).
        num_samples: number of samples from which the negatives are drawn.
        log_normaliser: logarithm of the normaliser.
        epsilon: constant added to the noise.
    """
    require_dims(negative, 2, "negative")
    # At least one, so that a batch of one sample without negatives has a finite logarithm.
    noise = max(1, negative.shape[1]) / num_samples
    floor = math.log(noise + epsilon)
    # softplus of differences of logarithms: the ratios of the paper's formula would overflow.
    pull = F.softplus(floor - (to_float32(positive) - log_normaliser))
    push = F.softplus(to_float32(negative) - log_normaliser - floor) + (floor - math.log(noise))
    return pull + push.sum(1)


def log_normaliser(num_samples: int, dim: int, temperature: float) -> float:
    """Expected logarithm of the CRD normaliser for random embeddings.

    Logarithm of ``num_samples`` times the mean of ``exp(similarity / temperature)`` over random
    unit vectors, by the leading term of the Bessel function.

    Args:
        num_samples: number of samples in the memory.
        dim: number of entries of an embedding, >= 2.
        temperature: divisor of the similarities, > 0.
    """
    half = (dim - 1) / 2
    sharpness = 1 / temperature
    # Closed form instead of a first-batch estimate, so the loss has no state to synchronize.
    root = math.hypot(half, sharpness)
    return math.log(num_samples) + root - half - half * math.log((half + root) / (2 * half))


def scaled_similarities(query: Tensor, others: Tensor, temperature: float) -> Tensor:
    """Similarities (N, M) of two sets of embeddings, divided by the temperature.

    Args:
        query: (N, D).
        others: (M, D).
        temperature: divisor, > 0.
    """
    return pairwise_dot(query, others.to(query.dtype)) / temperature


def contrast_memory(kind: str, size: int, embedding: Tensor) -> Memory:
    """Build the memory of both sides: a ``"queue"`` or a ``"bank"``.

    Args:
        kind: ``"queue"`` or ``"bank"``.
        size: number of rows.
        embedding: embeddings (N, D) whose width, type and device the rows have.
    """
    # Only a bank has a row for every sample of the data, and needs their number as its size.
    memory_class = Bank if kind == "bank" else Queue
    dim = embedding.shape[1]
    widths = {"student": dim, "teacher": dim}
    return memory_class(size, widths, device=embedding.device, dtype=embedding.dtype)


class ContrastOptions(Protocol):
    """Options of a contrastive objective, and its memory unless ``memory`` is ``"batch"``."""

    memory: Literal["queue", "bank", "batch"]
    negatives: int
    temperature: float
    stream: str
    remembered: Memory


def embedding_contrast(
    objective: ContrastOptions, student_embedding: Tensor, teacher_embedding: Tensor, batch: Batch
) -> Tensor:
    """Contrast of both sides with the batch (scalar) or with the memory (N,).

    Args:
        objective: options and memory.
        student_embedding: (N, D).
        teacher_embedding: (N, D).
        batch: batch of the step.
    """
    if objective.memory == "batch":
        return batch_contrast(student_embedding, teacher_embedding, objective.temperature)
    return memory_contrast(
        student_embedding,
        teacher_embedding,
        batch,
        objective.remembered,
        objective.negatives,
        objective.temperature,
        f"{objective.stream}.negatives",
    )


def contrast_rows(
    objective: RelationObjective, student: Outputs, teacher: Outputs, batch: Batch
) -> dict[str, Tensor]:
    """Rows of one step for ``update_memory``.

    Args:
        objective: the loss, whose connection has been built.
        student: student outputs.
        teacher: teacher outputs.
        batch: batch of the step.
    """
    student_embedding, teacher_embedding = objective.embed(student, teacher)
    return {
        "index": batch["index"],
        "student": student_embedding,
        "teacher": teacher_embedding,
        "counts": objective.weight(batch) > 0,
    }


def update_memory(memory: Memory, gathered_rows: dict[str, Tensor], momentum: float) -> None:
    """Update a memory with the embeddings of a step.

    A queue replaces its oldest rows; a bank moves the rows of the step's samples.

    Args:
        memory: rows ``student`` and ``teacher``.
        gathered_rows: rows of ``contrast_rows`` of all micro-batches and processes, or none.
        momentum: weight of the old value of a bank's row.
    """
    if not gathered_rows:
        return
    counted = gathered_rows["counts"]
    index = gathered_rows["index"][counted]
    rows = {side: gathered_rows[side][counted] for side in ("student", "teacher")}
    if isinstance(memory, Bank):
        memory.move(index, rows, momentum)
    elif isinstance(memory, Queue):
        memory.push(index, rows)


def memory_contrast(
    student_embedding: Tensor,
    teacher_embedding: Tensor,
    batch: Batch,
    memory: Memory,
    negatives: int,
    temperature: float,
    stream: str,
) -> Tensor:
    """Contrastive loss of both sides with rows of a memory.

    Args:
        student_embedding: (N, D).
        teacher_embedding: (N, D).
        batch: batch of the step.
        memory: rows ``student`` and ``teacher``. A bank also holds the positives.
        negatives: number of rows per sample.
        temperature: divisor of the similarities.
        stream: name of the random stream that draws the rows.

    Returns:
        One value per sample (N,).
    """
    rows = memory.draw(batch, negatives, stream)
    normaliser = log_normaliser(memory.size, student_embedding.shape[1], temperature)
    terms = []
    for query, side, partner in (
        (student_embedding, "teacher", teacher_embedding),
        (teacher_embedding, "student", student_embedding),
    ):
        scores = scaled_similarities(query, memory[side], temperature)
        if isinstance(memory, Bank):
            positive = scores.gather(1, batch["index"][:, None])[:, 0]
        else:
            # Each side is a constant for the other: both heads learn, each from its own term.
            positive = (query * partner.detach()).sum(1) / temperature
        negative = scores.gather(1, rows)
        terms.append(contrast_values(positive, negative, memory.size, normaliser))
    return torch.stack(terms).sum(0)


def batch_contrast(
    student_embedding: Tensor, teacher_embedding: Tensor, temperature: float
) -> Tensor:
    """Contrastive loss (scalar) of both sides with the other samples of the batch.

    Args:
        student_embedding: (N, D).
        teacher_embedding: (N, D).
        temperature: divisor of the similarities, > 0.
    """
    student_loss = _one_sided_contrast(student_embedding, teacher_embedding, temperature)
    return student_loss + _one_sided_contrast(teacher_embedding, student_embedding, temperature)


def _one_sided_contrast(query: Tensor, others: Tensor, temperature: float) -> Tensor:
    count, dim = query.shape
    scores = scaled_similarities(query, others.detach(), temperature)
    # Row i holds the indices i + 1, ..., i + N - 1 modulo N: every sample but i.
    positions = torch.arange(count, device=query.device)
    other_index = (positions[:, None] + positions[1:]) % count
    normaliser = log_normaliser(count, dim, temperature)
    values = contrast_values(scores.diagonal(), scores.gather(1, other_index), count, normaliser)
    return values.mean()
