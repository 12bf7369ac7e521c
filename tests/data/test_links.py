"""Edges for link prediction: splits without leakage, candidates, batches and wrong graphs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.data.link_candidates import Neighbours
from instil.data.link_samples import Links
from instil.data.links import link_splits, pyg_links
from instil.data.sources.graph_links import graph_links
from instil.networks.link_predictor import link_predictor
from instil.tasks.link_prediction import call

NUM_NODES = 30
Pair = frozenset[int]


def features() -> Tensor:
    return torch.randn(NUM_NODES, 5, generator=torch.Generator().manual_seed(0))


def edges() -> Tensor:
    """A ring of 28 nodes with chords of length three, and two nodes without an edge."""
    ring = torch.arange(28)
    return torch.stack([ring.repeat(2), torch.cat([(ring + 1) % 28, (ring + 3) % 28])])


def parts(**options: Any) -> tuple[Links, Links, Links]:
    data = link_splits(features(), edges(), eval_negatives=5, **options)
    assert isinstance(data.train, Links)
    assert isinstance(data.validation, Links)
    assert isinstance(data.test, Links)
    return data.train, data.validation, data.test


def pairs_of(index: Tensor) -> set[Pair]:
    """Pairs of a tensor (2, E)."""
    return {frozenset(pair) for pair in index.T.tolist()}


def positive_pairs(data: Links) -> set[Pair]:
    row, column = (data.label == 1).nonzero().T
    index = data.tensors["pair_index"]
    return pairs_of(torch.stack([index[row, 0], index[row, column + 1]]))


def test_every_edge_is_in_one_split_as_two_samples() -> None:
    train, validation, test = parts()
    groups = [positive_pairs(data) for data in (train, validation, test)]
    assert set().union(*groups) == pairs_of(edges())
    assert [len(group) for group in groups] == [44, 6, 6]
    assert sum(map(len, groups)) == 56, "no edge is in two splits"
    assert [int(data.has_label.sum()) for data in (train, validation, test)] == [88, 12, 12]
    assert torch.equal(train.tensors["pair_index"], parts()[0].tensors["pair_index"])


def test_networks_never_read_the_edges_that_they_predict() -> None:
    train, validation, test = parts()
    train_pairs = positive_pairs(train)
    for data in (validation, test):
        (graph,) = data.graphs
        assert pairs_of(graph.edges) == train_pairs
    rows_of_parts = torch.bincount(train.tensors["part"])
    assert len(rows_of_parts) == len(train.graphs) == 4
    for index, graph in enumerate(train.graphs):
        own = positive_pairs(train.subset((train.tensors["part"] == index).nonzero().flatten()))
        assert pairs_of(graph.edges) == train_pairs - own
    batch = train.__getitems__([3, 40, 71])
    for row in range(3):
        pair = batch["pair_position"][row, :2]
        assert frozenset(pair.tolist()) not in pairs_of(batch["edge_index"])


def test_negatives_have_no_edge_in_any_split() -> None:
    train, validation, test = parts()
    for data, edge_pairs in (
        (train, positive_pairs(train)),
        (validation, pairs_of(edges())),
        (test, pairs_of(edges())),
    ):
        row, column = (data.label == 0).nonzero().T
        index = data.tensors["pair_index"]
        negative = pairs_of(torch.stack([index[row, 0], index[row, column + 1]]))
        assert negative
        assert not negative & edge_pairs
        assert all(len(pair) == 2 for pair in negative), "no node is its own negative"


def test_negatives_are_uniform_over_the_allowed_nodes() -> None:
    neighbours = Neighbours(torch.tensor([[0, 0, 2, 3], [1, 4, 4, 4]]), 7)
    generator = torch.Generator().manual_seed(1)
    drawn = neighbours.negatives(torch.tensor([0, 4, 6]), 6000, generator)
    for row, allowed in enumerate([[2, 3, 5, 6], [1, 5, 6], [0, 1, 2, 3, 4, 5]]):
        count = drawn[row].bincount(minlength=7)
        assert count.nonzero().flatten().tolist() == allowed
        assert (count[allowed] / 6000 - 1 / len(allowed)).abs().max() < 0.03


def test_walks_visit_nodes_near_the_anchor() -> None:
    path = torch.stack([torch.arange(8), torch.arange(1, 9)])
    neighbours = Neighbours(path, 11)
    anchor = torch.tensor([4]).repeat(200)
    visited = neighbours.walk(anchor, 2, 3, torch.Generator().manual_seed(0))
    assert set(visited[:, 0].tolist()) == {3, 5}
    assert set(visited[:, 1].tolist()) == {2, 3, 5, 6}, "a step back stays where it was"
    assert set(visited[:, 2].tolist()) == {3, 5}, "the second walk starts again"
    lonely = neighbours.walk(torch.tensor([10]).repeat(200), 2, 3, torch.Generator())
    assert set(lonely.flatten().tolist()) == set(range(10)), "random nodes without an edge"


def test_nodes_without_a_training_edge_are_samples_without_labels() -> None:
    train, *_ = parts()
    unlabelled = train.tensors["pair_index"][~train.has_label, 0].tolist()
    assert {28, 29} <= set(unlabelled)
    assert len(train) == 88 + len(unlabelled)
    assert len(parts(all_anchors=False)[0]) == 88
    data = link_splits(features(), edges())
    assert data.notes == ("2 of 30 nodes have no training edge; only their own features count",)
    assert data.train.facts == {"candidates": 13, "features": 5, "nodes": 30}


@pytest.mark.parametrize("encoder", ["sage", "gcn", "mlp"])
def test_outputs_do_not_depend_on_the_batch(encoder: Any) -> None:
    train, *_ = parts()
    torch.manual_seed(0)
    net = link_predictor(5, encoder, width=4).eval()
    rows = torch.arange(len(train))
    whole = call(net, train.__getitems__(rows))["logits"]
    for few in ([7], [50, 7, 88]):
        outputs = call(net, train.__getitems__(few))
        torch.testing.assert_close(outputs["logits"], whole[few])


def test_batches_hold_one_graph_where_they_can() -> None:
    train, *_ = parts()
    order = train.shuffled(torch.Generator().manual_seed(0))
    assert sorted(order.tolist()) == list(range(len(train)))
    part = train.tensors["part"][order]
    assert len(part.unique_consecutive()) == 4


def test_training_batches_may_have_sampled_neighbours() -> None:
    train, validation, _ = parts(fanout=1)
    batch = train.__getitems__([0])
    assert batch["edge_index"][1].bincount().max() == 1
    assert validation.__getitems__([0])["edge_index"][1].bincount().max() > 1


def test_a_split_of_the_user_is_used() -> None:
    both = torch.cat([edges(), edges().flip(0)], 1)
    split = (torch.arange(56) % 3).repeat(2)
    data = link_splits(features(), both, split, eval_negatives=5)
    for value, links in enumerate((data.train, data.validation, data.test)):
        assert isinstance(links, Links)
        assert positive_pairs(links) == pairs_of(edges()[:, torch.arange(56) % 3 == value])
    split[0] = 1
    with pytest.raises(ValueError, match=r"edge of nodes 0 and 1 is in two splits"):
        link_splits(features(), both, split)
    with pytest.raises(ValueError, match=r"split: .* Expected 0, 1 or 2 for each of 112 edges"):
        link_splits(features(), both, split + 1)


def test_graphs_of_torch_geometric() -> None:
    one = SimpleNamespace(x=features(), edge_index=torch.cat([edges(), edges().flip(0)], 1))
    data = pyg_links(one, eval_negatives=5)
    assert torch.equal(data.train.label, parts()[0].label)
    graphs = []
    for start, stop in ((40, 44), (44, 50), (50, 56)):
        positive = edges()[:, start:stop]
        label = torch.cat([torch.ones(stop - start), torch.zeros(stop - start)])
        pairs = torch.cat([positive, positive.flip(0) * 0 + 29], 1)
        graphs.append(
            SimpleNamespace(
                x=features(),
                edge_index=edges()[:, :40],
                edge_label_index=pairs,
                edge_label=label,
            )
        )
    data = pyg_links(tuple(graphs), eval_negatives=5)
    assert isinstance(data.train, Links)
    assert isinstance(data.test, Links)
    assert positive_pairs(data.train) == pairs_of(edges()[:, :44])
    assert positive_pairs(data.test) == pairs_of(edges()[:, 50:])
    with pytest.raises(ValueError, match=r"data\.edge_label_index: missing"):
        pyg_links((one, one, one))
    with pytest.raises(ValueError, match=r"data: 2 graphs\. Expected one, or train, validation"):
        pyg_links((one, one))


star = torch.stack([torch.zeros(29, dtype=torch.int64), torch.arange(1, 30)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edges": edges() + 5}, r"edges: nodes 5 to 32\. Expected 0 to 29"),
        ({"edges": edges().float()}, r"edges: torch\.float32 .* Expected whole numbers"),
        ({"edges": edges()[:, :0]}, r"the train split has none of 0 edges"),
        ({"edges": edges()[:, :3]}, r"the validation split has none of 3 edges"),
        (
            {"edges": torch.cat([edges(), torch.tensor([[4], [4]])], 1)},
            r"edges: edge 56 joins node 4 to itself\. Expected two different nodes",
        ),
        (
            {"edges": star, "validation": 0.2},
            r"node 0 has an edge to every other node.*Leave the edges of the node out",
        ),
        ({"features": features() * torch.nan}, r"features: values are not finite"),
        ({"validation": 1.5}, r"validation: 1\.5 is out of range"),
        ({"validation": 0.5, "test": 0.5}, r"the train split has none of 56 edges"),
        ({"negatives": 0}, r"negatives: 0 is too small\. Expected at least 1"),
        ({"eval_negatives": 0}, r"eval_negatives: 0 is too small\. Expected at least 1"),
        ({"parts": 1}, r"parts: 1 is too small\. Expected at least 2"),
        ({"parts": 50}, r"parts: 50 is too large\. Expected at most .* 44"),
        ({"hops": 0}, r"hops: 0 is too small"),
    ],
)
def test_wrong_graphs_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        link_splits(**{"features": features(), "edges": edges(), **change})


def test_arrays_of_a_file(tmp_path: Any) -> None:
    np.savez(
        tmp_path / "g.npz",
        x=features().numpy(),
        one=edges()[:, :30].numpy(),
        two=edges()[:, 30:].numpy(),
        part=np.linspace(0, 2.5, 30),
    )
    data = graph_links("g.npz", edges=["one", "two"], eval_negatives=5, base=tmp_path)
    assert torch.equal(data.train.label, parts()[0].label)
    with pytest.raises(ValueError, match=r"g\.npz: split: no array 'oen'.*Did you mean one"):
        graph_links("g.npz", edges="one", split="oen", base=tmp_path)
    with pytest.raises(ValueError, match=r"g\.npz: split: expected 0 \(train\).* 30 items"):
        graph_links("g.npz", edges="one", split="part", base=tmp_path)
