"""Base class of losses on the change of features from one level to the next."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from instil.core import Batch, Outputs
from instil.functional.feature_maps import as_map
from instil.functional.pairs import feature_levels, match_levels
from instil.objectives.bases.feature_objective import FeatureObjective


def require_two_stages(count: int, what: str) -> None:
    """Raise ValueError for fewer than two levels, which have no change between them."""
    if count < 2:
        raise ValueError(
            f"{what} goes from one stage to the next and needs two pairs of stages, not {count}; "
            "tap more stages"
        )


class StageFlow(FeatureObjective):
    """Base class of losses of all paired levels together, shallow to deep.

    An adapter maps each student level to the teacher's shape. Subclasses define ``flow``.
    """

    def choose(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[tuple[int, int]]:
        """Pairs of levels, shallow to deep.

        Raises:
            ValueError: for fewer than two pairs.
        """
        matched = sorted(match_levels(student, teacher, self.pairs))
        require_two_stages(len(matched), type(self).__name__)
        return matched

    def flow(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Loss (N,) of maps (N, C, H, W) of equal shapes on both sides."""
        raise NotImplementedError

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        student_levels, teacher_levels = feature_levels(student), feature_levels(teacher)
        pairs = zip(self.adapters, self.matched, strict=True)
        adapted = [adapter(student_levels[i]) for adapter, (i, _) in pairs]
        return self.flow(adapted, [as_map(teacher_levels[j]) for _, j in self.matched])
