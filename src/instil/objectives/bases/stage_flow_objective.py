"""What losses share that compare how a net gets from one stage to the next."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from instil.core import Batch, Outputs
from instil.functional.feature_maps import as_map
from instil.functional.pairs import feature_levels, match_levels
from instil.objectives.bases.feature_objective import FeatureObjective


def require_two_stages(number: int, what: str) -> None:
    """ValueError for fewer than two stages, between which nothing flows."""
    if number < 2:
        raise ValueError(
            f"{what} goes from one stage to the next and needs two pairs of stages, not {number}; tap more stages"
        )


class StageFlow(FeatureObjective):
    """A loss of all paired stages together, shallow to deep, each student stage through an adapter to the teacher's shape."""

    def choose(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[tuple[int, int]]:
        """The pairs, shallow to deep. Raises ValueError for fewer than two."""
        found = sorted(match_levels(student, teacher, self.pairs))
        require_two_stages(len(found), type(self).__name__)
        return found

    def flow(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """The loss (N,) of maps of equal shapes on both sides."""
        raise NotImplementedError

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine, theirs = feature_levels(student), feature_levels(teacher)
        adapted = [made(mine[i]) for made, (i, _) in zip(self.adapters, self.matched, strict=True)]
        return self.flow(adapted, [as_map(theirs[j]) for _, j in self.matched])
