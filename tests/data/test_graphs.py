"""Nodes of a graph: batches, splits, position features, PyTorch Geometric and wrong data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from instil.data.graph_positions import inductive_positions, position_features
from instil.data.graphs import POSITIONED, graph_splits, pyg_splits
from instil.data.nodes import Nodes
from instil.data.sources.graph_npz import graph_npz
from instil.data.sources.graphs_npz import graphs_npz
from instil.data.splits import Splits

NUM_NODES = 30


def arrays() -> dict[str, Any]:
    """Two rings of 14 nodes, one for each class, and two nodes without an edge."""
    ring = torch.arange(28)
    target = ring // 14 * 14 + (ring + 1) % 14
    return {
        "features": torch.randn(NUM_NODES, 5, generator=torch.Generator().manual_seed(0)),
        "edges": torch.stack([ring, target]),
        "label": (torch.arange(NUM_NODES) >= 14).long(),
        "masks": {
            "train": torch.arange(NUM_NODES) % 3 == 0,
            "validation": torch.arange(NUM_NODES) % 3 == 1,
            "test": torch.arange(NUM_NODES) % 3 == 2,
        },
    }


def parts(data: Splits) -> Iterator[Nodes]:
    for part in (data.train, data.validation, data.test):
        assert isinstance(part, Nodes)
        yield part


def test_training_samples_are_all_nodes_without_the_labels_of_the_others() -> None:
    data = graph_splits(**arrays())
    assert len(data.train) == NUM_NODES
    is_train = torch.arange(NUM_NODES) % 3 == 0
    assert torch.equal(data.train.has_label, is_train)
    assert torch.equal(data.train.label[is_train], arrays()["label"][is_train])
    assert torch.equal(data.test.index, torch.arange(2, NUM_NODES, 3))
    assert data.notes == ("2 of 30 nodes have no edge; only their own features count",)
    inductive = graph_splits(**arrays(), transductive=False)
    assert torch.equal(inductive.train.index, torch.arange(0, NUM_NODES, 3))


def test_edges_are_made_symmetric_without_loops_and_repetitions() -> None:
    edges = torch.tensor([[0, 1, 2, 2], [1, 0, 2, 3]])
    train, *_ = parts(graph_splits(**arrays() | {"edges": edges}))
    assert train.edges.T.tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]
    directed, *_ = parts(graph_splits(**arrays() | {"edges": edges}, directed=True))
    assert directed.edges.T.tolist() == [[0, 1], [1, 0], [2, 3]]


def test_held_out_nodes_keep_their_index_in_the_graph() -> None:
    masks = {"train": torch.arange(NUM_NODES) >= 4}
    data = graph_splits(**arrays() | {"masks": masks}, shares=(0.2, 0.2))
    label = arrays()["label"]
    seen: list[int] = []
    for part in (data.validation, data.test):
        assert torch.equal(part.label, label[part.index])
        seen += part.index.tolist()
    labelled = data.train.index[data.train.has_label].tolist()
    assert sorted(seen + labelled) == list(range(4, NUM_NODES))


def test_positions_are_the_largest_eigenvectors_of_the_regularized_adjacency() -> None:
    graph = arrays()
    # A chord makes the eigenvalues of the two rings different.
    graph["edges"] = torch.cat([graph["edges"], torch.tensor([[0, 3], [5, 9]])], 1)
    position = position_features(graph["edges"], NUM_NODES, 4)
    adjacency = torch.zeros(NUM_NODES, NUM_NODES)
    adjacency[graph["edges"][0], graph["edges"][1]] = 1
    adjacency[graph["edges"][1], graph["edges"][0]] = 1
    adjacency += adjacency.sum(1).mean() / NUM_NODES
    scale = adjacency.sum(1).rsqrt()
    values, vectors = torch.linalg.eigh(scale[:, None] * adjacency * scale)
    largest = values.abs().argsort(descending=True)[:4]
    # The signs of eigenvectors are arbitrary, so the products of all pairs are compared.
    expected = vectors[:, largest] * values[largest].abs() * NUM_NODES**0.5
    torch.testing.assert_close(position @ position.T, expected @ expected.T, atol=1e-3, rtol=1e-3)
    assert position[28:].abs().max() < 1, "a node without an edge has no vector of its own"
    train, *_ = parts(graph_splits(**graph, positions=4))
    batch = train.__getitems__([3])
    assert batch[POSITIONED].shape == (len(batch["x"]), 9)
    assert torch.equal(batch[POSITIONED][:, :5], batch["x"])
    assert torch.equal(position, position_features(graph["edges"], NUM_NODES, 4))


def test_inductive_nodes_and_their_edges_are_unknown_in_training() -> None:
    data = graph_splits(**arrays(), inductive=0.5)
    assert torch.equal(data.validation.index, torch.arange(1, NUM_NODES, 3))
    assert len(data.test) == 5
    hidden = torch.cat([data.validation.index, data.test.index])
    rest = sorted(set(range(NUM_NODES)) - set(hidden.tolist()))
    assert data.train.index.tolist() == rest
    assert torch.equal(data.train.has_label, data.train.index % 3 == 0)
    train, _, test = parts(data)
    assert not torch.isin(train.edges, hidden).any()
    assert torch.equal(test.edges, next(parts(graph_splits(**arrays()))).edges)


def test_a_small_transfer_set_keeps_the_other_nodes_as_neighbours() -> None:
    data = graph_splits(**arrays(), transfer_nodes=4)
    train, _, test = parts(data)
    assert len(train) == 14
    assert len(test) == 6
    assert not torch.isin(train.index, test.index).any()
    assert torch.equal(train.edges, test.edges)
    batch = train.__getitems__(range(len(train)))
    assert int(batch["valid"].sum()) == 14
    assert len(batch["x"]) > 14


def test_a_new_node_has_the_mean_position_of_its_known_neighbours() -> None:
    edges = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    both = torch.cat([edges, edges.flip(0), torch.tensor([[0, 1], [4, 4]])], 1)
    is_observed = torch.tensor([True] * 4 + [False] * 2)
    position = inductive_positions(both, is_observed, 2)
    torch.testing.assert_close(position[:4], position_features(both[:, :8], 4, 2))
    torch.testing.assert_close(position[4], position[:2].mean(0))
    assert not position[5].any(), "a node without a known neighbour"


def test_sampled_neighbours_are_few_known_and_the_same_for_the_same_rows() -> None:
    graph = arrays()
    graph["edges"] = torch.cartesian_prod(torch.arange(28), torch.arange(28)).T
    train, _, test = parts(graph_splits(**graph, fanout=3))
    assert test.fanout is None
    batch = train.__getitems__([0, 5])
    source, target = batch["edge_index"]
    degree = target.bincount(minlength=len(batch["x"]))
    assert degree.max() == 3
    assert torch.equal(degree[:2], torch.tensor([3, 3]))
    near = torch.cat([torch.arange(2), source[target < 2]]).unique()
    assert not degree[~torch.isin(torch.arange(len(degree)), near)].any(), "two hops"
    pairs = batch["index"][batch["edge_index"]].T.tolist()
    assert len({tuple(pair) for pair in pairs}) == len(pairs)
    again = train.__getitems__([0, 5])
    assert torch.equal(batch["edge_index"], again["edge_index"])
    assert torch.equal(batch["index"], again["index"])
    assert not torch.equal(batch["index"], train.__getitems__([5, 0])["index"])


def test_sampling_more_edges_than_there_are_gives_whole_batches() -> None:
    whole, *_ = parts(graph_splits(**arrays()))
    sampled, *_ = parts(graph_splits(**arrays(), fanout=9))
    expected, actual = (part.__getitems__([3, 29]) for part in (whole, sampled))
    assert torch.equal(expected["index"], actual["index"])
    into = set(map(tuple, actual["edge_index"].T.tolist()))
    assert into <= set(map(tuple, expected["edge_index"].T.tolist()))
    assert {edge for edge in into if edge[1] == 0} == {
        edge for edge in map(tuple, expected["edge_index"].T.tolist()) if edge[1] == 0
    }


def test_sparse_features_are_those_of_a_csr_matrix(tmp_path: Path) -> None:
    dense = np.array([[0, 1, 1], [0, 0, 0], [1, 0, 1]], np.float32)
    fields = {"edge_index": np.array([[0], [1]]), "y": np.array([0, 1, 0])}
    masks = {"split": np.array([0, 1, 2])}
    sparse = {"x_indptr": np.array([0, 2, 2, 4]), "x_indices": np.array([1, 2, 0, 2])}
    np.savez(tmp_path / "g.npz", **fields, **masks, **sparse)
    train, *_ = parts(graph_npz("g.npz", base=tmp_path))
    assert torch.equal(train.features, torch.from_numpy(dense))
    np.savez(tmp_path / "h.npz", **fields, **masks, **sparse | {"x_indptr": np.array([0, 2, 1, 4])})
    with pytest.raises(ValueError, match="x_indptr is not the start of each row"):
        graph_npz("h.npz", base=tmp_path)


def test_an_isolated_node_is_alone_in_its_batch() -> None:
    train, *_ = parts(graph_splits(**arrays()))
    batch = train.__getitems__([29])
    assert batch["index"].tolist() == [29]
    assert batch["edge_index"].shape == (2, 0)


def test_an_archive_and_an_object_of_pytorch_geometric_give_the_same_nodes(tmp_path: Path) -> None:
    graph = arrays()
    masks = dict(zip(("train_mask", "val_mask", "test_mask"), graph["masks"].values(), strict=True))
    both = torch.cat([graph["edges"], graph["edges"].flip(0)], 1)
    fields = {"x": graph["features"], "edge_index": both, "y": graph["label"], **masks}
    np.savez(tmp_path / "g.npz", **{name: value.numpy() for name, value in fields.items()})
    pairs = zip(
        parts(graph_npz("g.npz", base=tmp_path)),
        parts(pyg_splits(SimpleNamespace(**fields))),
        strict=True,
    )
    for one, other in pairs:
        assert torch.equal(one.features, other.features)
        assert torch.equal(one.edges, other.edges)
        assert torch.equal(one.label, other.label)
        assert torch.equal(one.index, other.index)
    del fields["y"]
    with pytest.raises(ValueError, match=r"data\.y: missing"):
        pyg_splits(SimpleNamespace(**fields))


def test_integer_labels_of_pytorch_geometric_may_have_columns() -> None:
    graph = arrays()
    classes = graph["label"] + (torch.arange(NUM_NODES) == 0) * 2
    fields = {"x": graph["features"], "edge_index": graph["edges"]}
    # Data sets of OGB have labels (M, 1), and (M, C) for several classes per node.
    column = pyg_splits(SimpleNamespace(**fields, y=classes[:, None]))
    assert column.kind == "single"
    assert column.classes == ("0", "1", "2")
    several = torch.stack([graph["label"], 1 - graph["label"]], 1)
    data = pyg_splits(SimpleNamespace(**fields, y=several))
    assert data.kind == "multi"
    index = data.test.index
    assert torch.equal(data.test.label, several[index].float())
    assert data.train.label[index].eq(-100).all()


def test_layers_of_pytorch_geometric_are_exact_with_one_more_hop() -> None:
    nn = pytest.importorskip("torch_geometric.nn")
    graph = arrays()
    layers = torch.nn.ModuleList([nn.GCNConv(5, 4), nn.GCNConv(4, 2)])
    train, *_ = parts(graph_splits(**graph, hops=3))

    def outputs(x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = layers[1](layers[0](x, edges).relu(), edges)
        return result

    whole = outputs(train.features, train.edges)
    batch = train.__getitems__([5, 20])
    assert len(batch["x"]) < NUM_NODES
    actual = outputs(batch["x"], batch["edge_index"])[:2]
    torch.testing.assert_close(actual, whole[[5, 20]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": torch.full((30, 2), torch.nan)}, r"features: values are not finite"),
        ({"edges": torch.tensor([[0], [30]])}, r"edges: nodes 0 to 30\. Expected 0 to 29"),
        ({"edges": torch.zeros(3, 2)}, r"edges: torch\.float32 of shape \(3, 2\)"),
        ({"label": torch.zeros(4)}, r"label: 4 labels for 30 nodes"),
        ({"hops": 0}, r"hops: 0 is too small"),
        ({"inductive": 2.0}, r"inductive: 2\.0 is out of range"),
        (
            {"inductive": 0.01},
            r"inductive: a share of 0\.01 of 10 test nodes is less than one node",
        ),
        ({"transfer_nodes": 10}, r"transfer_nodes: 10 is out of range\. Expected 0 to 9"),
        (
            {"transfer_nodes": 2, "transductive": False},
            r"transfer_nodes: transductive and transfer_nodes each choose the training samples",
        ),
        ({"positions": 30}, r"positions: 30 is out of range\. Expected 1 to 29"),
        (
            {"masks": {"train": torch.ones(30), "test": torch.ones(30)}},
            "test mask: node 0 is in two splits",
        ),
        ({"masks": {"train": torch.ones(3)}}, r"train mask: shape \(3,\)\. Expected \(30,\)"),
    ],
)
def test_wrong_arrays_are_errors(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        graph_splits(**arrays() | changes)


def test_a_missing_array_is_an_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "g.npz", x=np.zeros((3, 2)), edges=np.zeros((2, 1), np.int64))
    with pytest.raises(ValueError, match=r"edges: no array 'edge_index'\. The file has x, edges"):
        graph_npz("g.npz", base=tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": np.array(["train", "test", "val"])}, r"split: expected .* values such as test"),
        ({"split": np.array([0, 1, 5])}, r"split: expected .* got values such as 0, 1, 5"),
        ({"split": np.array([0, 1])}, r"split: expected .* each of the 3 items, got shape \(2,\)"),
        ({"y": np.array(["a", "b", "a"])}, r"label: values of type <U1. Expected class indices"),
        ({"y": np.array([0, 1, np.nan])}, "label: values that are not whole numbers"),
        ({"edge_index": np.array([[0.5], [1]])}, "edges: values that are not whole numbers"),
        ({"edge_index": np.array([0, 1])}, r"edges: shape \(2,\)\. Expected \(2, E\)"),
    ],
)
@pytest.mark.parametrize("source", [graph_npz, graphs_npz])
def test_wrong_values_of_a_file_are_errors(
    tmp_path: Path, source: Callable[..., Splits], changes: dict[str, Any], message: str
) -> None:
    fields = {
        "x": np.zeros((3, 2)),
        "edge_index": np.array([[0.0], [0.0]]),
        "graph": np.arange(3),
        "y": np.array([0.0, 1, 0]),
        "split": np.array([0, 2, 1]),
    }
    np.savez(tmp_path / "g.npz", **fields)
    assert len(source("g.npz", base=tmp_path).test) == 1
    np.savez(tmp_path / "h.npz", **fields | changes)
    with pytest.raises(ValueError, match=message):
        source("h.npz", base=tmp_path)
