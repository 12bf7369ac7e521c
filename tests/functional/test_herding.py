from __future__ import annotations

import torch

from instil.functional.herding import herding_order


def test_each_choice_is_the_best_one_for_the_mean() -> None:
    """Algorithm 4 of the paper, written as a search over all free samples."""
    features = torch.randn(12, 3, dtype=torch.float64)
    order = herding_order(features, 7).tolist()
    for size in range(1, 8):
        before = order[: size - 1]
        errors = {
            row: float((features[[*before, row]].mean(0) - features.mean(0)).norm())
            for row in range(12)
            if row not in before
        }
        assert order[size - 1] == min(errors, key=lambda row: errors[row])


def test_the_chosen_mean_is_closer_than_that_of_random_samples() -> None:
    features = torch.randn(200, 8)
    mean = features.mean(0)
    chosen = (features[herding_order(features, 10)].mean(0) - mean).norm()
    drawn = [(features[torch.randperm(200)[:10]].mean(0) - mean).norm() for _ in range(20)]
    assert chosen < min(drawn) / 2


def test_few_samples_are_all_chosen_once() -> None:
    assert sorted(herding_order(torch.randn(4, 2), 10).tolist()) == [0, 1, 2, 3]
    assert herding_order(torch.zeros(0, 2), 3).tolist() == []
