"""Base classes of losses on the positions of feature maps."""

from __future__ import annotations

from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, LabelObjective
from instil.functional.feature_maps import resize_to_common
from instil.objectives.bases.feature_objective import FeatureObjective


class DenseObjective(FeatureObjective):
    """A loss inside feature maps; auto pairs the deepest stages alone, as published. A subclass gives ``loss`` of two maps on one grid."""

    deepest = True

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        mine, _ = resize_to_common(student, teacher)
        return nn.Identity(), f"on {mine.shape[2]}x{mine.shape[3]}"


class PixelLabelObjective(LabelObjective):
    """A loss that needs the label of every pixel, (N, H, W); images without a labelled valid pixel do not count."""

    per_sample = True

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
