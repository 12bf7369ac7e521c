"""Normalised discounted cumulative gain of the first candidates."""

from __future__ import annotations

from torch import Tensor

from instil.core import Card
from instil.functional.ranking import ndcg
from instil.metrics.bases.ranking_metric import KOption, RankingMetric


class NormalizedGain(RankingMetric):
    """Normalised discounted cumulative gain (nDCG) at k."""

    card = Card(
        "Cumulated gain-based evaluation of IR techniques",
        "https://doi.org/10.1145/582415.582418",
        "TOIS",
        2002,
        labels=("graded",),
        use="Search and recommendation, where the order of the first results matters.",
        pitfalls="The gain is the grade itself; some papers use 2^grade - 1. Values of different "
        "numbers of candidates do not compare.",
    )

    def __init__(self, k: KOption = 10) -> None:
        self.k = k
        super().__init__()

    def values_of(self, ranked: Tensor) -> Tensor:
        return ndcg(ranked, self.k)
