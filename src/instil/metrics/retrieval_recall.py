"""Share of the relevant candidates among the first ones."""

from __future__ import annotations

from torch import Tensor

from instil.core import Card
from instil.functional.ranking import recall_at_k
from instil.metrics.bases.ranking_metric import KOption, RankingMetric


class RetrievalRecall(RankingMetric):
    """Recall at k: share of the relevant candidates among the k highest scores."""

    card = Card(
        "Recall at k",
        labels=("graded",),
        use="The first stage of a search, whose results another model sorts.",
        pitfalls="It ignores the order of the first k and the size of a grade above 0.",
    )

    def __init__(self, k: KOption = 10) -> None:
        self.k = k
        super().__init__()

    def values_of(self, ranked: Tensor) -> Tensor:
        return recall_at_k(ranked, self.k)
