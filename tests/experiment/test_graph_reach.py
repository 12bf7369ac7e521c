"""Graph networks that read further than the neighbours in a batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.core import Net
from instil.data.graphs import graph_splits
from instil.data.links import link_splits
from instil.experiment.graph_reach import check_reach
from instil.networks.gcn import gcn, neighbour_mean
from instil.networks.link_predictor import link_predictor
from instil.networks.mlp import mlp
from instil.tasks import link_prediction, node_classification

NUM_NODES = 200


class Normalized(nn.Module):
    """Graph network with a mean over all nodes of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 2)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        outputs = neighbour_mean(self.linear(x), edge_index)
        return outputs - outputs.mean(0)


def ring() -> tuple[Tensor, Tensor]:
    """Features and edges of a ring."""
    nodes = torch.arange(NUM_NODES)
    return torch.randn(NUM_NODES, 5), torch.stack([nodes, (nodes + 1) % NUM_NODES])


def nodes_of(hops: int) -> Any:
    features, edges = ring()
    label = torch.arange(NUM_NODES) % 2
    return graph_splits(features, edges, label, {}, hops=hops).train


def links_of(hops: int) -> Any:
    return link_splits(*ring(), hops=hops, parts=2).train


@pytest.mark.parametrize(("hops", "depth"), [(1, 1), (2, 2), (3, 3), (2, 1)])
def test_networks_that_read_the_nodes_of_a_batch_pass(hops: int, depth: int) -> None:
    check_reach(Net(gcn(2, 5, depth=depth), node_classification.call), nodes_of(hops))
    model = link_predictor(5, depth=depth)
    check_reach(Net(model, link_prediction.call), links_of(hops))
    check_reach(Net(mlp(2, features=5), node_classification.call), nodes_of(hops))


def test_networks_that_read_further_are_errors() -> None:
    message = r"model: GCN reads nodes up to 3 edges away.*got hops: 1\. Set data.hops: 3"
    with pytest.raises(ValueError, match=message):
        check_reach(Net(gcn(2, 5, depth=3), node_classification.call), nodes_of(1))
    message = r"model: LinkPredictor reads nodes up to 3 edges away.*got hops: 2"
    with pytest.raises(ValueError, match=message):
        check_reach(Net(link_predictor(5, depth=3), link_prediction.call), links_of(2))


def test_a_norm_over_the_nodes_of_a_batch_passes() -> None:
    check_reach(Net(Normalized(), node_classification.call), nodes_of(1))


def test_sampled_neighbours_are_those_of_all_edges_in_the_check() -> None:
    features, edges = ring()
    label = torch.arange(NUM_NODES) % 2
    train = graph_splits(features, edges, label, {}, hops=2, fanout=1).train
    check_reach(Net(gcn(2, 5, depth=2), node_classification.call), train)
    assert train.fanout == 1
