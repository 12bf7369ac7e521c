"""Ranking metrics over batches, compared with torchmetrics."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchmetrics.retrieval import RetrievalMRR, RetrievalNormalizedDCG, RetrievalRecall

from instil.metrics.bases.ranking_metric import RankingMetric
from instil.metrics.mean_reciprocal_rank import MeanReciprocalRank
from instil.metrics.normalized_gain import NormalizedGain
from instil.metrics.retrieval_recall import RetrievalRecall as RecallAtK

CASES = [
    (NormalizedGain(k=3), RetrievalNormalizedDCG(top_k=3)),
    (RecallAtK(k=3), RetrievalRecall(top_k=3)),
    (MeanReciprocalRank(), RetrievalMRR()),
]


@pytest.mark.parametrize(("metric", "reference"), CASES)
def test_a_metric_equals_that_of_torchmetrics(metric: RankingMetric, reference: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    # torchmetrics does not count candidates with a negative score as found.
    scores = torch.rand(10, 6, generator=generator)
    grades = torch.randint(0, 2, (10, 6), generator=generator).float()
    grades[:, 0] = 1
    metric.reset()
    for rows in (slice(0, 4), slice(4, 10)):
        metric.update({"logits": scores[rows]}, {"label": grades[rows]})
    index = torch.arange(10)[:, None].expand(10, 6)
    expected = reference(scores.flatten(), grades.flatten().long(), indexes=index.flatten())
    assert metric.compute() == pytest.approx(expected.item())


def test_queries_without_a_relevant_candidate_are_left_out() -> None:
    metric = MeanReciprocalRank()
    label = torch.tensor([[0.0, 1.0], [0.0, 0.0], [-100, -100]])
    metric.update({"logits": torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])}, {"label": label})
    assert metric.compute() == 1
    metric.reset()
    metric.update({"logits": torch.zeros(1, 2)}, {"label": torch.zeros(1, 2)})
    with pytest.raises(ValueError, match="no query has a relevant candidate"):
        metric.compute()


def test_scores_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"scores \(1, 2\) and grades \(1, 3\)"):
        NormalizedGain().update({"logits": torch.zeros(1, 2)}, {"label": torch.zeros(1, 3)})
