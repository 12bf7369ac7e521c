"""Regions of the student's dense map, and the teacher's embeddings of the same regions as crops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Objectives, Outputs, Scheme, Teacher, Update
from instil.functional.keyed_random import keyed_uniform

GRID = "scheme.region_crops.grid"
"""Random stream of the number of rows and columns."""


class RegionCrops(Scheme):
    """The student embeds the cells of a grid from its map, the teacher embeds them as crops.

    Each step draws a number of rows and of columns. Both sides get the role ``region_embedding``
    (N, R, D), which ``clip_self`` reads: means of the student's ``dense_embedding`` over the cells,
    and the teacher's image embeddings of the cells, resized to the size of the image.

    Raises:
        ValueError: if the student has no ``dense_embedding``, or its width is not the teacher's.
    """

    card = Card(
        "CLIPSelf: Vision Transformer Distills Itself for Open-Vocabulary Dense Prediction",
        "https://arxiv.org/abs/2310.01403",
        "ICLR",
        2024,
        source="offline",
        tasks=("image_text",),
        tags=("teacher_modules",),
        equation=r"s_r = \frac{1}{|r|} \sum_{p \in r} f^s(x)_p, \quad t_r = f^t(x_r)",
        use="For the objective clip_self. A student that starts from its teacher learns to embed "
        "regions as its teacher embeds crops of them.",
        pitfalls="The teacher embeds each cell of the grid as an image of full size: up to "
        "max_cells squared crops per image.",
        deviations="Regions are means over the cells, weighted by their overlap, instead of "
        "RoIAlign. The dense map is that of the whole last layer; the paper removes the attention "
        "weights of the last layer of a transformer.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        objectives: Objectives | Mapping[str, Objective],
        max_cells: Annotated[int, Ge(1), Doc("largest number of rows and of columns")] = 6,
    ):
        super().__init__(student, teacher, objectives)
        self.max_cells = max_cells

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        teacher = self.teacher_outputs(batch, grad)
        student: Outputs = self.student(batch)
        if "dense_embedding" not in student:
            raise ValueError(
                f"scheme: {type(self.student.model).__name__} has no embedding of each position. "
                "Expected two_towers, or a transformer tower of CLIP of open_clip or transformers"
            )
        rows, columns = self._grid(batch)
        regions = cell_means(student["dense_embedding"], rows, columns)
        crops = self._crop_embeddings(batch, rows, columns)
        if regions.shape[2] != crops.shape[2]:
            raise ValueError(
                f"scheme: the student's embeddings have another width. Expected {crops.shape[2]}, "
                f"as the teacher's, got {regions.shape[2]}"
            )
        return student | {"region_embedding": regions}, teacher | {"region_embedding": crops}

    def _grid(self, batch: Batch) -> tuple[int, int]:
        """Rows and columns of this step, the same for all samples and processes."""
        clock: Batch = {key: batch[key] for key in ("seed", "step") if key in batch}
        # On the CPU, so that no step waits for the device.
        uniform = keyed_uniform(clock | {"index": torch.zeros(1, dtype=torch.int64)}, 2, GRID)
        rows, columns = (1 + (uniform[0] * self.max_cells).long()).tolist()
        return rows, columns

    def _crop_embeddings(self, batch: Batch, rows: int, columns: int) -> Tensor:
        assert self.teacher is not None
        reads = getattr(getattr(self.teacher, "net", None), "call", None)
        key = getattr(reads, "reads", {}).get("image", "image")
        image: Tensor = batch[key]
        crops = cell_crops(image, rows, columns).flatten(0, 1)
        # One text is enough: the teacher's image embeddings do not depend on texts.
        first = {
            name: value[:1] if isinstance(value, Tensor) and value.ndim else value
            for name, value in batch.items()
        }
        embedding: Tensor = self.teacher(first | {key: crops})["image_embedding"]
        return embedding.view(len(image), rows * columns, -1)

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)


def cell_crops(image: Tensor, rows: int, columns: int) -> Tensor:
    """Cells of a grid, row by row, resized to the size of the image (bilinear).

    Args:
        image: (N, C, H, W).
        rows: number of rows.
        columns: number of columns.

    Returns:
        (N, rows * columns, C, H, W).

    Example:
        >>> import torch
        >>> cell_crops(torch.tensor([[[[0.0, 1.0]]]]), 1, 2).shape
        torch.Size([1, 2, 1, 1, 2])
    """
    crops = []
    for row in range(rows):
        for column in range(columns):
            theta = image.new_tensor(
                [
                    [1 / columns, 0, (2 * column + 1) / columns - 1],
                    [0, 1 / rows, (2 * row + 1) / rows - 1],
                ]
            )
            thetas = theta.expand(len(image), -1, -1)
            grid = F.affine_grid(thetas, list(image.shape), align_corners=False)
            crops.append(F.grid_sample(image, grid, padding_mode="border", align_corners=False))
    return torch.stack(crops, 1)


def cell_means(features: Tensor, rows: int, columns: int) -> Tensor:
    """Means of a map over the cells of a grid, row by row.

    A position that lies in two cells counts in each by its overlap.

    Args:
        features: (N, D, h, w).
        rows: number of rows.
        columns: number of columns.

    Returns:
        (N, rows * columns, D).

    Example:
        >>> import torch
        >>> cell_means(torch.tensor([[[[0.0, 1.0, 2.0]]]]), 1, 2)
        tensor([[[0.3333],
                 [1.6667]]])
    """
    vertical = _overlaps(rows, features.shape[2]).to(features)
    horizontal = _overlaps(columns, features.shape[3]).to(features)
    means = vertical @ features @ horizontal.T
    return means.flatten(2).mT


def _overlaps(num_cells: int, size: int) -> Tensor:
    """Share (num_cells, size) of each position in a cell; rows sum to 1."""
    cell = torch.arange(num_cells)[:, None] / num_cells
    position = torch.arange(size) / size
    start = torch.maximum(cell, position)
    end = torch.minimum(cell + 1 / num_cells, position + 1 / size)
    return (end - start).clamp_min(0) * num_cells
