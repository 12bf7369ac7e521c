"""Base class of losses on the positions of feature maps."""

from __future__ import annotations

from torch import Tensor, nn

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
