"""Losses on lists of passages of different lengths."""

from __future__ import annotations

import pytest
import torch

from instil import catalogue
from instil.data.label_kinds import GradedData
from instil.data.splits import Splits
from instil.tasks.ranking import Ranking
from instil.tasks.sentence_embedding import SentenceEmbedding


def task(*labels: list[float]) -> Ranking:
    """Task with data of these grades."""
    grades = torch.tensor(labels)
    data = GradedData({"x": torch.zeros(len(grades))}, grades, {})
    ranking = Ranking()
    ranking.set_data(Splits(data, data, data, (), "graded"))
    return ranking


SAME = task([1.0, 0.0, 0.0], [-100.0] * 3)
SHORTER = task([1.0, 0.0, 0.0], [1.0, 0.0, -100.0])


@pytest.mark.parametrize("name", ["dist", "logit_standardization", "spherical_kd", "logit_mse"])
def test_losses_that_count_missing_passages_need_lists_of_one_length(name: str) -> None:
    objective = catalogue.find("objective", name)()
    SAME.check({"it": objective})
    with pytest.raises(ValueError, match=r"objectives\.it: .* also of missing ones"):
        SHORTER.check({"it": objective})


@pytest.mark.parametrize("name", ["kd", "margin_mse", "listmle", "rank_distil", "forward_kl"])
def test_losses_that_leave_missing_passages_out(name: str) -> None:
    SHORTER.check({"it": catalogue.find("objective", name)()})


def test_features_of_padded_texts_are_refused() -> None:
    for name in ("fitnet", "vkd", "attention_transfer"):
        for checked in (SAME, SentenceEmbedding()):
            with pytest.raises(ValueError, match=r"objectives\.it: .* compares whole samples"):
                checked.check({"it": catalogue.find("objective", name)()})
    for name in ("distilbert", "embedding_regression"):
        SentenceEmbedding().check({"it": catalogue.find("objective", name)()})
