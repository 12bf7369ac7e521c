"""Base classes of losses on the positions of feature maps."""

from __future__ import annotations

from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, LabelObjective
from instil.functional.feature_maps import resize_to_common
from instil.objectives.bases.feature_objective import FeatureObjective


class DenseObjective(FeatureObjective):
    """Base class of losses within feature maps, on the smaller grid of the two sides.

    ``pairs: auto`` is the deepest pair only, as in the papers. Subclasses define ``loss``.
    """

    deepest = True

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        resized, _ = resize_to_common(student, teacher)
        return nn.Identity(), f"on {resized.shape[2]}x{resized.shape[3]}"


class PixelLabelObjective(LabelObjective):
    """Base class of losses that need a label (N, H, W) for every pixel.

    Images without a labelled valid pixel do not count.
    """

    per_sample = True

    def pixels(self, batch: Batch) -> Tensor:
        """Labels (N, H, W), with -100 for invalid pixels.

        Raises:
            ValueError: if the batch has no labels, or one label per image.
        """
        label: Tensor | None = batch.get("label")
        if label is None or label.ndim != 3:
            got = "no label" if label is None else f"a label of shape {tuple(label.shape)}"
            raise ValueError(
                f"{type(self).__name__} needs a label for every pixel, (N, H, W), and the batch "
                f"has {got}"
            )
        valid: Tensor | None = batch.get("valid")
        if valid is None:
            return label
        # `valid` has the shape of the samples or of the positions.
        missing = [1] * (label.ndim - valid.ndim)
        return label.masked_fill(~valid.bool().view(*valid.shape, *missing), UNLABELLED)

    def weight(self, batch: Batch) -> Tensor:
        return (self.pixels(batch) != UNLABELLED).flatten(1).any(1).float()
