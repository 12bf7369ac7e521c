"""Memories with one queue of vectors per class."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from instil.core import Batch, to_float32
from instil.functional.feature_maps import as_map
from instil.functional.keyed_random import keyed_uniform
from instil.modules.memory import Queue


def class_queues(teacher_features: Iterable[Tensor], num_classes: int, size: int) -> nn.ModuleList:
    """Build one memory of teacher vectors per feature level, with ``size`` rows per class.

    Args:
        teacher_features: levels (N, C, *grid) or (N, L, C).
        num_classes: number of classes.
        size: rows of a class.
    """
    queues = nn.ModuleList()
    for level in map(as_map, teacher_features):
        widths = {"teacher": level.shape[1]}
        dtype = to_float32(level).dtype
        queues.append(Queue(num_classes * size, widths, num_classes, level.device, dtype))
    return queues


def draw_class_rows(queue: Queue, size: int, batch: Batch, stream: str) -> Tensor:
    """Indices of rows of a memory, at the same positions for every class.

    They are drawn by (seed, step), once for the whole batch.

    Args:
        queue: memory with one group of rows per class.
        size: number of rows of all classes together; each class gets its share, rounded down, plus
            one.
        batch: batch with ``seed`` and ``step``.
        stream: name of the random stream.
    """
    positions = torch.arange(queue.length, device=queue.owner.device)
    clock = {key: value for key, value in batch.items() if key in ("seed", "step")}
    order = keyed_uniform(clock | {"index": positions}, 1, stream)[:, 0].argsort()
    chosen = order[: size // queue.groups + 1]
    starts = torch.arange(queue.groups, device=positions.device) * queue.length
    return (starts[:, None] + chosen).flatten()
