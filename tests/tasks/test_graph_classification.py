"""Graph classification: padding does not count; models of PyTorch Geometric get joined graphs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from instil.networks.gin import GIN, gin
from instil.tasks.graph_classification import call, joined
from tests.tasks.samples import graphs


class JoinedGIN(nn.Module):
    """The layers of a GIN with the parameters of a model of PyTorch Geometric."""

    def __init__(self, net: GIN):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        source, target = edge_index
        for layer in self.net.layers:
            total = (1 + layer.epsilon) * x
            total = total.index_add(0, target, x[source])
            x = layer.second(layer.first(total).relu()).relu()
        embedding = torch.stack(
            [x[batch == graph].mean(0) for graph in range(int(batch.max()) + 1)]
        )
        logits: Tensor = self.net.head(embedding)
        return logits


def test_padded_and_joined_graphs_have_the_same_logits() -> None:
    torch.manual_seed(0)
    net = gin(4, 6, width=5, depth=2)
    assert isinstance(net, GIN)
    nn.init.normal_(net.layers[0].epsilon)
    batch = graphs()
    torch.testing.assert_close(
        call(net, batch)["logits"], call(JoinedGIN(net), batch)["logits"], atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("readout", ["mean", "sum", "max"])
def test_padding_changes_no_logits(readout: str) -> None:
    torch.manual_seed(0)
    net = GIN(4, 6, 5, 2, readout)
    batch = graphs()
    alone = [
        net(x[None, mask], adjacency[None, mask][:, :, mask], mask[None, mask])
        for x, adjacency, mask in zip(
            batch["x"], batch["adjacency"], batch["node_mask"], strict=True
        )
    ]
    torch.testing.assert_close(call(net, batch)["logits"], torch.cat(alone), atol=1e-5, rtol=1e-4)


def test_joined_graphs_have_the_edges_of_the_padded_ones() -> None:
    batch = graphs()
    x, edge_index, graph = joined(batch)
    assert torch.equal(graph.bincount(), batch["node_mask"].sum(1))
    assert edge_index.shape[1] == int(batch["adjacency"].sum())
    assert torch.equal(graph[edge_index[0]], graph[edge_index[1]])
    first = int(batch["node_mask"][0].sum())
    edges = batch["adjacency"][0].nonzero().flip(1)
    assert torch.equal(edge_index[:, : len(edges)].T, edges)
    assert torch.equal(x[:first], batch["x"][0, :first])


def test_wrong_models_and_readouts_are_errors() -> None:
    with pytest.raises(ValueError, match=r"Expected \(x, adjacency, node_mask\) or"):
        call(nn.Identity(), graphs())
    with pytest.raises(ValueError, match="readout: 'min' is unknown"):
        gin(4, 6, readout="min")  # type: ignore[arg-type]
