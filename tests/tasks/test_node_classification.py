"""Node classification: networks with and without edges; neighbour nodes do not count."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instil.core import Net
from instil.networks.gcn import gcn
from instil.networks.mlp import mlp
from instil.tasks.node_classification import NodeClassification, call
from tests.tasks.samples import nodes


def test_a_convolution_is_the_mean_over_a_node_and_its_neighbours() -> None:
    net = gcn(3, 2, width=4, depth=1)
    x, edges = torch.randn(4, 2), torch.tensor([[0, 1, 2], [1, 2, 1]])
    rows = [x[0], (x[0] + x[1] + x[2]) / 3, (x[1] + x[2]) / 2, x[3]]
    expected = net.head(net.stages[0].linear(torch.stack(rows)).relu())
    torch.testing.assert_close(call(net, {"x": x, "edge_index": edges})["logits"], expected)


def test_a_network_without_edges_reads_each_node_separately() -> None:
    net = mlp(4, features=6)
    batch = nodes()
    outputs = call(net, batch)["logits"]
    torch.testing.assert_close(outputs[3:5], net(batch["x"][3:5]))


def test_neighbour_nodes_do_not_count() -> None:
    def sure(_: torch.nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        right = torch.nn.functional.one_hot(batch["label"], 4).float()
        return {"logits": torch.where(batch["valid"][:, None], right, -right)}

    batch = nodes()
    metrics, details = NodeClassification().evaluate(Net(torch.nn.Identity(), sure), [batch])
    assert metrics["accuracy"] == 1
    assert sum(map(sum, details["confusion"])) == int(batch["valid"].sum())


def test_export_of_a_student_raises() -> None:
    with pytest.raises(
        ValueError,
        match="a student of node classification cannot be exported to ONNX: it is not a graph from "
        "x, edge_index to logits",
    ):
        NodeClassification().check_export()
    with pytest.raises(ValueError, match="Expected a dict of x, edge_index, got a Tensor"):
        NodeClassification().to_batch(torch.rand(2, 6), (6,))
