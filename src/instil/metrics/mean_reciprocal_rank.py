"""Mean reciprocal rank of the first relevant candidate."""

from __future__ import annotations

from torch import Tensor

from instil.core import Card
from instil.functional.ranking import reciprocal_rank
from instil.metrics.bases.ranking_metric import RankingMetric


class MeanReciprocalRank(RankingMetric):
    """Mean reciprocal rank of the first relevant candidate."""

    card = Card(
        "Mean reciprocal rank",
        labels=("graded",),
        use="Questions with one right result.",
        pitfalls="Relevant candidates after the first one do not count.",
    )

    def values_of(self, ranked: Tensor) -> Tensor:
        return reciprocal_rank(ranked)
