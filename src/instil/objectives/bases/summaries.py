"""Summary embeddings of several teachers, for losses on patch tokens and embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from instil.core import Batch, Outputs
from instil.functional.ensembles import members, sample_teacher_mask
from instil.functional.keyed_random import keyed_uniform
from instil.modules.adapters import linear_adapter

SUMMARY_NEEDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "student": (("features",), ("embedding",)),
    "teacher": (("members", "features"), ("members", "embedding")),
}
"""Roles of a loss on the embedding and the deepest level."""


def summary_heads(
    student: Outputs, teacher: Outputs, make_normalizer: Callable[[Tensor], nn.Module]
) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Build a head and a normalizer of the embedding for each teacher, from a dry batch.

    Args:
        student: student outputs.
        teacher: teacher outputs.
        make_normalizer: builds the normalizer of teacher embeddings (N, D).

    Returns:
        Linear adapters of the student's embedding, and normalizers of the teachers' embeddings.

    Raises:
        ValueError: if a teacher has no embedding.
    """
    heads = nn.ModuleList()
    normalizers = nn.ModuleList()
    for index, member in enumerate(members(teacher)):
        if "embedding" not in member:
            raise ValueError(
                f"teacher {index} outputs {', '.join(member)}, without an embedding. Name the "
                "module that outputs it in the teacher's taps"
            )
        heads.append(linear_adapter(student["embedding"], member["embedding"]))
        normalizers.append(make_normalizer(member["embedding"]))
    return heads, normalizers


def teacher_embeddings(teacher: Outputs) -> list[Tensor]:
    """Embeddings (N, D) of the teachers."""
    return [member["embedding"] for member in members(teacher)]


def summary_pairs(
    heads: nn.ModuleList, normalizers: nn.ModuleList, student: Outputs, teacher: Outputs
) -> list[tuple[Tensor, Tensor]]:
    """Adapted student embedding (N, D) and normalized teacher embedding (N, D) of each teacher.

    Args:
        heads: adapter of the student's embedding for each teacher.
        normalizers: normalizer of the embedding of each teacher.
        student: student outputs.
        teacher: outputs of all teachers.
    """
    sides = zip(heads, normalizers, teacher_embeddings(teacher), strict=True)
    return [
        (head(student["embedding"]), normalizer(embedding)) for head, normalizer, embedding in sides
    ]


def teacher_losses(
    loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    patches: Iterable[tuple[Tensor, Tensor, nn.Module]],
    embeddings: Iterable[tuple[Tensor, Tensor]],
) -> Tensor:
    """Losses (N, K) of K teachers.

    Args:
        loss: function of the student's and teacher's embedding (N, D), then of their patches
            (N, T, D), that returns (N,).
        patches: student patches, teacher patches and normalizer of the latter, for each teacher.
        embeddings: student and teacher embedding, for each teacher.
    """
    losses = []
    for (student, teacher, normalizer), pair in zip(patches, embeddings, strict=True):
        losses.append(loss(*pair, student, normalizer(teacher)))
    return torch.stack(losses, 1)


def mean_over_teachers(losses: Tensor, batch: Batch, stream: str, drop: float) -> Tensor:
    """Mean of the losses of the teachers that a sample uses.

    Args:
        losses: (N, K) of K teachers.
        batch: batch of the step.
        stream: name of the loss's random stream.
        drop: probability of ignoring a teacher whose loss is not the largest.

    Returns:
        One value per sample (N,).
    """
    if losses.shape[1] == 1 or not drop:
        return losses.mean(1)
    uniforms = keyed_uniform(batch, losses.shape[1], f"{stream}.teachers")
    mask: Tensor = sample_teacher_mask(losses, uniforms, drop)
    return (losses * mask).sum(1) / mask.sum(1)
