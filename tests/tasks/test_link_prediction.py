"""Link prediction: the call, metrics against loops, pseudo-labels and wrong batches."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from instil.core import Net, Outputs
from instil.networks.link_predictor import link_predictor
from instil.networks.mlp import mlp
from instil.networks.sage import sage
from instil.tasks.link_prediction import LinkPrediction, call
from tests.tasks.samples import links


def test_models_of_nodes_are_scored_by_inner_products() -> None:
    torch.manual_seed(0)
    batch = links()
    position = batch["pair_position"]
    encoder = sage(5, 6, width=4)
    embedding = encoder(batch["x"], batch["edge_index"])
    outputs = call(encoder, batch)
    for row, column in ((0, 0), (7, 3)):
        anchor, candidate = embedding[position[row, 0]], embedding[position[row, 1 + column]]
        torch.testing.assert_close(outputs["logits"][row, column], anchor @ candidate)
        torch.testing.assert_close(outputs["embedding"][row], anchor)
        torch.testing.assert_close(outputs["candidate_embedding"][row, column], candidate)


@pytest.mark.parametrize("is_predictor", [False, True])
def test_a_perceptron_reads_anchors_and_candidates_only(is_predictor: bool) -> None:
    shapes: list[int] = []

    def record(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        shapes.append(len(arguments[0]))

    net = mlp(5, features=6)
    if is_predictor:
        net = link_predictor(6, "mlp", width=4)
        net.get_submodule("encoder").register_forward_pre_hook(record)
    else:
        net.register_forward_pre_hook(record)
    batch = links()
    outputs = call(net, batch)
    assert shapes == [15]
    others = call(net, batch | {"x": batch["x"] + 9 * (torch.arange(20) >= 15)[:, None]})
    torch.testing.assert_close(others["logits"], outputs["logits"])


def test_metrics_equal_loops_over_pairs() -> None:
    batch = links()
    scores = torch.randn(12, 4, generator=torch.Generator().manual_seed(1)).round(decimals=1)
    label = batch["label"]

    def fixed(*_: object) -> Outputs:
        return {"logits": scores}

    metrics, _ = LinkPrediction(k=2).evaluate(Net(nn.Identity(), fixed), [batch])
    ranks = []
    values: dict[float, list[float]] = {0.0: [], 1.0: []}
    for row in used_rows(label):
        columns = [j for j in range(4) if label[row, j] >= 0]
        edge = next(j for j in columns if label[row, j] == 1)
        ranks.append(sum(bool(scores[row, j] >= scores[row, edge]) for j in columns))
        for j in columns:
            values[float(label[row, j])].append(float(scores[row, j]))
    assert metrics["mrr"] == pytest.approx(sum(1 / rank for rank in ranks) / len(ranks))
    assert metrics["hits"] == pytest.approx(sum(rank <= 2 for rank in ranks) / len(ranks))
    assert metrics["accuracy"] == pytest.approx(sum(rank == 1 for rank in ranks) / len(ranks))
    order = [(a > b) + (a == b) / 2 for a, b in product(values[1.0], values[0.0])]
    assert metrics["auc"] == pytest.approx(sum(order) / len(order))


def used_rows(label: Tensor) -> Iterator[int]:
    """Rows with an edge."""
    yield from (label > 0).any(1).nonzero().flatten().tolist()


def test_pseudo_labels_fill_unknown_pairs_only() -> None:
    label = torch.tensor([[1.0, 0.0, -100.0, -100.0], [-100.0] * 4])
    scores = torch.tensor([[-1.0, 2.0, 0.5, -0.5], [3.0, 1.0, -1.0, 0.0]])
    expected = torch.tensor([[1.0, 0, 1, 0], [1, 1, 0, 0]])
    assert torch.equal(LinkPrediction().pseudo_labels({"logits": scores}, label), expected)


def test_wrong_batches_are_refused() -> None:
    task = LinkPrediction()
    batch = links()
    with pytest.raises(ValueError, match=r"pair_position: wrong shape.*Expected an anchor and 4"):
        task.check_data(batch | {"pair_position": batch["pair_position"][:, 1:]})
    with pytest.raises(ValueError, match=r"link prediction needs 'end_index' in a batch"):
        task.check_data({key: value for key, value in batch.items() if key != "end_index"})
    with pytest.raises(ValueError, match="cannot be exported to ONNX"):
        task.check_export()
