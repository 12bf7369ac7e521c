"""pass@k against the enumeration of all choices."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from instil.functional.pass_at_k import pass_at_k


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_the_estimate_is_the_share_of_choices_with_a_correct_sample(k: int) -> None:
    num_samples = 5
    expected = []
    for num_correct in range(num_samples + 1):
        choices = list(combinations(range(num_samples), k))
        expected.append(sum(min(choice) < num_correct for choice in choices) / len(choices))
    values = pass_at_k(torch.arange(num_samples + 1), num_samples, k)
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64))


def test_the_estimate_is_unbiased() -> None:
    generator = torch.Generator().manual_seed(0)
    correct = torch.rand(20_000, 6, generator=generator) < 0.3
    estimate = pass_at_k(correct.sum(1), 6, 3).mean().item()
    assert estimate == pytest.approx(1 - 0.7**3, abs=0.005)


def test_k_beyond_the_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="k: Expected 1 to 4"):
        pass_at_k(torch.tensor([1]), 4, 5)
