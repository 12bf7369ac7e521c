from __future__ import annotations

import pytest
import torch

from instil.core import Card
from instil.functional.graph import log_softmax_into
from instil.objectives.bases.graph_objective import EdgeObjective


class Edges(EdgeObjective):
    card = Card("edges")


def test_softmax_over_the_edges_into_each_node() -> None:
    target = torch.tensor([2, 0, 2, 0, 2, 3])
    values = torch.randn(6, dtype=torch.float64)
    actual = log_softmax_into(values, target, 5, torch.ones(6, dtype=torch.bool))
    for node in (0, 2, 3):
        assert torch.allclose(actual[target == node], values[target == node].log_softmax(0))


@pytest.mark.parametrize("scale", [1.0, 1e5])
def test_edges_that_do_not_count_are_as_if_they_were_not_there(scale: float) -> None:
    target, counted = (
        torch.tensor([2, 0, 2, 0, 2, 3]),
        torch.tensor([True, True, False, True, True, False]),
    )
    values = (torch.randn(6) * scale).requires_grad_()
    actual = log_softmax_into(values, target, 5, counted)
    assert torch.allclose(
        actual[counted],
        log_softmax_into(values[counted], target[counted], 5, torch.ones(4, dtype=torch.bool)),
    )
    assert actual[~counted].abs().sum() == 0
    (gradient,) = torch.autograd.grad(actual.square().sum(), values)
    assert torch.isfinite(gradient).all()
    assert gradient[~counted].abs().sum() == 0


def test_nodes_count_that_have_a_valid_neighbour() -> None:
    batch = {"x": torch.zeros(5, 2), "edge_index": torch.tensor([[0, 1, 2, 3], [1, 2, 3, 3]])}
    assert Edges().weight(batch).tolist() == [0, 1, 1, 1, 0]
    batch["valid"] = torch.tensor([True, False, True, True, True])
    assert Edges().weight(batch).tolist() == [0, 0, 0, 1, 0]
    batch["edge_index"] = torch.zeros(2, 0, dtype=torch.int64)
    assert Edges().weight(batch).sum() == 0


def test_a_batch_needs_edges() -> None:
    with pytest.raises(
        ValueError, match=r"needs 'edge_index' \(2, E\) of sources and targets; the batch has x"
    ):
        Edges().weight({"x": torch.zeros(5, 2)})
    with pytest.raises(ValueError, match=r"it is \(5, 2\)"):
        Edges().weight({"edge_index": torch.zeros(5, 2)})
