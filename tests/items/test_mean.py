"""Weighted mean: uncounted items have no effect, and an empty mean is zero with a graph."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from instil.core import batch_size, item_weights, mean, to_float32
from instil.items import graph_preserving_zero


def test_weights() -> None:
    values, weight = torch.tensor([1.0, 4.0, 100.0]), torch.tensor([1.0, 0.5, 0.0])
    assert float(mean(values, weight)) == pytest.approx((1 + 2) / 1.5)


WEIGHTS = st.just(0.0) | st.floats(0.125, 8, width=32)


@given(st.lists(st.tuples(st.floats(-1000, 1000, width=32), WEIGHTS), min_size=1, max_size=20))
def test_agrees_with_plain_arithmetic(rows: list[tuple[float, float]]) -> None:
    values, weight = (torch.tensor(column) for column in zip(*rows, strict=True))
    total = sum(w for _, w in rows)
    expected = sum(v * w for v, w in rows) / total if total else 0.0
    assert float(mean(values, weight)) == pytest.approx(expected, rel=1e-4, abs=1e-2)


def test_nothing_counts_is_zero_with_its_graph() -> None:
    values = torch.tensor([1.0, 2.0], requires_grad=True)
    loss = mean(values, torch.zeros(2))
    assert float(loss.detach()) == 0
    assert torch.equal(torch.autograd.grad(loss, values)[0], torch.zeros(2))


def test_no_items_at_all() -> None:
    values = torch.zeros(0, requires_grad=True)
    assert float(mean(values, torch.zeros(0)).detach()) == 0
    assert mean(values, torch.zeros(0)).requires_grad


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_does_not_spread_from_an_item_that_does_not_count(bad: float) -> None:
    values = torch.tensor([3.0, bad], requires_grad=True)
    loss = mean(values, torch.tensor([1.0, 0.0]))
    assert float(loss.detach()) == 3
    assert torch.equal(torch.autograd.grad(loss, values)[0], torch.tensor([1.0, 0.0]))
    assert not mean(values, torch.ones(2)).isfinite()


def test_wrong_shape() -> None:
    with pytest.raises(
        ValueError,
        match=(
            r"loss values \(2, 3\) for items \(2,\); if a sample has several items, the batch "
            r"needs 'valid'"
        ),
    ):
        mean(torch.ones(2, 3), torch.ones(2))


def test_a_scalar_is_taken_as_it_is() -> None:
    assert float(mean(torch.tensor(5.0), torch.zeros(3))) == 5


def test_half_precision_is_summed_in_float32() -> None:
    values = torch.full((4096,), 1.001, dtype=torch.bfloat16)
    assert mean(values, torch.ones(4096)).dtype == torch.float32
    assert float(mean(values, torch.ones(4096))) == pytest.approx(float(values[0]), rel=1e-5)
    assert mean(values.double(), torch.ones(4096)).dtype == torch.float64


def test_full_keeps_what_is_full_already() -> None:
    for dtype, expected in (
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32,) * 2,
        (torch.float64,) * 2,
    ):
        assert to_float32(torch.ones(1, dtype=dtype)).dtype == expected


def test_nothing_hangs_on_its_outputs() -> None:
    one, two = (
        torch.full((0, 3), 1.0, requires_grad=True),
        torch.tensor([torch.nan, torch.inf], requires_grad=True),
    )
    loss = graph_preserving_zero({"a": one, "b": (two,), "c": torch.ones(1)}, ("a", "b"))
    assert float(loss.detach()) == 0
    assert torch.equal(torch.autograd.grad(loss, two)[0], torch.zeros(2))


def test_items_and_size() -> None:
    batch = {"name": "x", "step": torch.tensor(3), "image": torch.zeros(4, 2)}
    assert batch_size(batch) == 4
    assert torch.equal(item_weights(batch), torch.ones(4))
    assert torch.equal(
        item_weights(batch | {"valid": torch.tensor([True, False, True, True])}),
        torch.tensor([1.0, 0, 1, 1]),
    )
    with pytest.raises(
        ValueError, match="the batch has no tensor with dimensions; its keys are name, step"
    ):
        batch_size({"name": "x", "step": torch.tensor(3)})
