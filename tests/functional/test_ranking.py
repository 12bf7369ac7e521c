"""Ranking measures compared with torchmetrics, scikit-learn and loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score
from torchmetrics.functional.retrieval import (
    retrieval_normalized_dcg,
    retrieval_recall,
    retrieval_reciprocal_rank,
)

from instil.functional.ranking import ndcg, ranked_grades, recall_at_k, reciprocal_rank


def sample() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(20, 9, generator=generator)
    grades = torch.randint(0, 4, (20, 9), generator=generator).float()
    grades[:, 0] = 1
    return scores, grades


@pytest.mark.parametrize("k", [1, 3, 20])
def test_measures_equal_those_of_torchmetrics_and_scikit_learn(k: int) -> None:
    scores, grades = sample()
    ranked = ranked_grades(scores, grades)
    for row in range(len(scores)):
        one, target = scores[row], grades[row]
        assert ndcg(ranked, k)[row].item() == pytest.approx(
            ndcg_score(target[None].numpy(), one[None].numpy(), k=k)
        )
        top_k = min(k, 9)
        assert ndcg(ranked, k)[row].item() == pytest.approx(
            retrieval_normalized_dcg(one, target.long(), top_k=top_k).item(), abs=1e-6
        )
        # torchmetrics does not count candidates with a negative score as found.
        assert recall_at_k(ranked, k)[row].item() == pytest.approx(
            retrieval_recall(one.sigmoid(), target > 0, top_k=top_k).item()
        )
        assert reciprocal_rank(ranked)[row].item() == pytest.approx(
            retrieval_reciprocal_rank(one, target > 0).item()
        )


def test_missing_candidates_do_not_count() -> None:
    scores, grades = sample()
    padded_scores = torch.cat([torch.full((20, 2), 99.0), scores], 1)
    padded_grades = torch.cat([torch.full((20, 2), -100.0), grades], 1)
    ranked = ranked_grades(padded_scores, padded_grades)
    assert torch.equal(ranked[:, :9], ranked_grades(scores, grades))
    assert (ranked[:, 9:] == -100).all()
    assert torch.equal(ndcg(ranked, 5), ndcg(ranked[:, :9], 5))
    infinite = ranked_grades(torch.tensor([[-np.inf, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, -100]]))
    assert infinite.tolist() == [[0.0, 1.0, -100.0]]


def test_equal_scores_count_as_the_wrong_order() -> None:
    ranked = ranked_grades(torch.zeros(1, 4), torch.tensor([[2.0, 0.0, 1.0, 0.0]]))
    assert ranked.tolist() == [[0.0, 0.0, 1.0, 2.0]]
    assert reciprocal_rank(ranked).item() == pytest.approx(1 / 3)


def test_a_query_without_a_relevant_candidate_has_value_0() -> None:
    ranked = torch.zeros(1, 3)
    values = [ndcg(ranked, 2), recall_at_k(ranked, 2), reciprocal_rank(ranked)]
    assert [value.item() for value in values] == [0, 0, 0]
