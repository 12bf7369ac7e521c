"""Link predictors and GraphSAGE: formulas of decoders and layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from instil.networks.link_predictor import LinkPredictor, link_predictor
from instil.networks.sage import SAGELayer, sage
from tests.tasks.samples import links


def test_a_layer_adds_a_node_and_the_mean_over_its_neighbours() -> None:
    layer = SAGELayer(2, 3)
    x, edge_index = torch.randn(4, 2), torch.tensor([[0, 1, 2], [1, 2, 1]])
    mean = torch.stack([0 * x[0], (x[0] + x[2]) / 2, x[1], 0 * x[3]])
    expected = (layer.own(x) + mean @ layer.neighbours.weight.T).relu()
    torch.testing.assert_close(layer(x, edge_index), expected)
    assert sum(weight.numel() for weight in sage(10, 64).parameters()) == 17_162


@pytest.mark.parametrize("decoder", ["dot", "mlp"])
def test_scores_are_symmetric_functions_of_the_product(decoder: Any) -> None:
    torch.manual_seed(0)
    net = link_predictor(6, width=4, decoder=decoder)
    batch = links()
    position = torch.tensor([[0, 5], [5, 0]])
    outputs = net(batch["x"], position, batch["edge_index"])
    torch.testing.assert_close(outputs["logits"][0], outputs["logits"][1])
    product = outputs["query_embedding"] * outputs["candidate_embedding"][:, 0]
    if decoder == "dot":
        expected = product.sum(1, keepdim=True)
    else:
        first, _, second = net.get_submodule("decoder").children()
        expected = second(first(product).relu())
    torch.testing.assert_close(outputs["logits"], expected)


def test_encoders_and_decoders_have_names() -> None:
    with pytest.raises(ValueError, match=r"encoder: 'gat' is unknown\. Expected one of sage, gcn"):
        link_predictor(6, "gat")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"decoder: 'cosine' is unknown\. Expected one of dot"):
        LinkPredictor(nn.Identity(), 6, "cosine")
