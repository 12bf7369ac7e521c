"""Assignments against all permutations."""

from __future__ import annotations

import itertools

import pytest
import torch

from instil.functional.assignment import assign_columns


def test_the_total_cost_is_smallest() -> None:
    cost = torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(0))
    columns = assign_columns(cost)
    for matrix, column in zip(cost, columns.tolist(), strict=True):
        totals = {
            order: sum(float(matrix[row, order[row]]) for row in range(3))
            for order in itertools.permutations(range(4), 3)
        }
        assert tuple(column) == min(totals, key=lambda order: totals[order])


def test_no_samples_large_costs_and_too_few_columns() -> None:
    assert assign_columns(torch.zeros(0, 2, 3)).shape == (0, 2)
    cost = torch.tensor([[[torch.inf, 1.0], [2.0, torch.nan]]])
    assert assign_columns(cost).tolist() == [[1, 0]]
    with pytest.raises(ValueError, match=r"cost: too few columns\. Expected at least 3"):
        assign_columns(torch.zeros(1, 3, 2))
