"""MUNGE: which features change, to which values, and independence of the order."""

from __future__ import annotations

import pytest
import torch

from instil.data.munge import munge_rows
from instil.data.table_encoder import Feature

FEATURES = (Feature("x", 0, 1), Feature("job", 1, 2, ("a", "b")))


def rows() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    job = torch.eye(2)[torch.arange(40) % 2]
    return torch.cat([torch.randn(40, 1, generator=generator), job], dim=1)


def test_a_category_is_swapped_as_a_whole_with_the_probability() -> None:
    # The noise of x is small, so the nearest row of the other category decides job.
    table = rows()
    table[:, 0] = torch.arange(40) // 2 * 10
    synthetic = munge_rows(table, FEATURES, copies=50, swap=0.3)
    assert set(map(tuple, synthetic[:, 1:].tolist())) == {(1, 0), (0, 1)}
    changed = (synthetic[:, 1] != table.repeat(50, 1)[:, 1]).float().mean()
    assert changed.item() == pytest.approx(0.3, abs=0.03)


def test_a_number_is_drawn_around_the_neighbour() -> None:
    table = torch.tensor([[0.0], [2.0], [50.0], [53.0]])
    synthetic = munge_rows(table, [Feature("x", 0, 1)], copies=4000, swap=1.0, scale=4.0)
    drawn = synthetic.view(4000, 4)
    expected = torch.tensor([2.0, 0.0, 53.0, 50.0])
    torch.testing.assert_close(drawn.mean(0), expected, atol=0.05, rtol=0)
    torch.testing.assert_close(
        drawn.std(0), torch.tensor([0.5, 0.5, 0.75, 0.75]), atol=0.03, rtol=0
    )


def test_draws_depend_on_the_seed_only_and_zero_copies_are_empty() -> None:
    first, second = (munge_rows(rows(), FEATURES, 2, seed=3) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, munge_rows(rows(), FEATURES, 2, seed=4))
    with pytest.raises(ValueError, match="a neighbour needs two rows"):
        munge_rows(rows()[:1], FEATURES, 1)
