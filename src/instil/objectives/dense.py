"""What losses inside feature maps share: one grid for both sides, and the labels of its positions."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, LabelObjective, full
from instil.objectives.adapters import as_map, resize
from instil.objectives.feature_objective import FeatureObjective


def one_grid(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both stages as maps in full precision on the smaller grid of the two: (N, C, H, W) and (N, D, H, W)."""
    student, teacher = full(as_map(student)), full(as_map(teacher))
    height, width = (min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True))
    return resize(student, (height, width)), resize(teacher, (height, width))


def positions(stage: Tensor) -> Tensor:
    """A map (N, C, H, W) as vectors (N, H * W, C)."""
    return stage.flatten(2).mT


def on_grid(label: Tensor, grid: Sequence[int]) -> Tensor:
    """Labels (N, H, W) at the positions of a coarser grid, each that of the nearest pixel: (N, h * w)."""
    if tuple(label.shape[1:]) == tuple(grid):
        return label.flatten(1)
    return (
        F.interpolate(label[:, None].float(), tuple(grid), mode="nearest")
        .to(label.dtype)
        .flatten(1)
    )


class DenseObjective(FeatureObjective):
    """A loss inside feature maps; auto pairs the deepest stages alone, as published. A subclass gives ``loss`` of two maps on one grid."""

    deepest = True

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        mine, _ = one_grid(student, teacher)
        return nn.Identity(), f"on {mine.shape[2]}x{mine.shape[3]}"


class PixelLabelObjective(LabelObjective):
    """A loss that needs the label of every pixel, (N, H, W); images without a labelled valid pixel do not count."""

    samples = True

    def pixels(self, batch: Batch) -> Tensor:
        """The labels (N, H, W), -100 where a pixel is invalid. Raises ValueError for a batch without labels, or with one an image."""
        label: Tensor | None = batch.get("label")
        if label is None or label.ndim != 3:
            found = "no label" if label is None else f"a label of shape {tuple(label.shape)}"
            raise ValueError(
                f"{type(self).__name__} needs a label for every pixel, (N, H, W), and the batch has {found}"
            )
        valid: Tensor | None = batch.get("valid")
        if valid is None:
            return label
        return label.masked_fill(
            ~valid.bool().view(*valid.shape, *[1] * (label.ndim - valid.ndim)), UNLABELLED
        )

    def weight(self, batch: Batch) -> Tensor:
        return (self.pixels(batch) != UNLABELLED).flatten(1).any(1).float()
