"""Graphs in padded batches, their sources and wrong arrays."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from instil.data.graph_samples import Graphs, pyg_graphs
from instil.data.sources.graphs_npz import graphs_npz
from instil.data.sources.pixel_graphs import pixel_graphs


def arrays() -> dict[str, Any]:
    """A triangle, a single node and a path of two nodes; the edges are in no order."""
    return {
        "features": torch.arange(6.0)[:, None],
        "edges": torch.tensor([[4, 2, 0, 1], [5, 0, 1, 2]]),
        "num_nodes": torch.tensor([3, 1, 2]),
        "label": torch.tensor([0, 1, 1]),
        "classes": ["a", "b"],
    }


def test_batches_are_padded_to_their_largest_graph() -> None:
    batch = Graphs(**arrays()).__getitems__([2, 0])
    assert batch["x"][..., 0].tolist() == [[4, 5, 0], [0, 1, 2]]
    assert batch["node_mask"].tolist() == [[True, True, False], [True, True, True]]
    assert batch["adjacency"].nonzero().tolist() == [[0, 1, 0], [1, 0, 2], [1, 1, 0], [1, 2, 1]]
    assert batch["label"].tolist() == [1, 0]


def test_a_subset_has_the_same_graphs_without_the_others() -> None:
    part = Graphs(**arrays()).subset([1, 2])
    batch = part.__getitems__([0, 1])
    assert batch["x"].shape == (2, 2, 1)
    assert batch["x"][0, 0, 0] == 3
    assert not batch["adjacency"][0].any(), "a graph without edges"
    assert batch["index"].tolist() == [1, 2]


def test_objects_of_pytorch_geometric_give_the_same_graphs() -> None:
    expected = Graphs(**arrays()).__getitems__([0, 1, 2])
    edges = [torch.tensor([[2, 0, 1], [0, 1, 2]]), torch.zeros(2, 0).long()]
    edges.append(torch.tensor([[0], [1]]))
    features = torch.arange(6.0)[:, None].split([3, 1, 2])
    graphs = []
    for x, edge_index, y in zip(features, edges, (0, 1, 1), strict=True):
        graphs.append(SimpleNamespace(x=x, edge_index=edge_index, y=torch.tensor([y])))
    actual = pyg_graphs(graphs).__getitems__([0, 1, 2])
    for key in ("x", "adjacency", "node_mask", "label"):
        assert torch.equal(actual[key], expected[key])
    with pytest.raises(ValueError, match=r"graphs\[0\]\.y: missing"):
        pyg_graphs([SimpleNamespace(x=features[0], edge_index=edges[0])])


def test_an_archive_has_graphs_and_splits(tmp_path: Path) -> None:
    fields = {
        "x": np.arange(6.0)[:, None],
        "edge_index": np.array([[0], [1]]),
        "graph": np.array([0, 0, 1, 1, 2, 2]),
        "y": np.array([0, 1, 0]),
        "split": np.array([0, 2, 1]),
    }
    np.savez(tmp_path / "g.npz", **fields)
    data = graphs_npz("g.npz", base=tmp_path)
    assert data.test.__getitems__([0])["x"].flatten().tolist() == [2, 3]
    assert int(data.train.__getitems__([0])["adjacency"].sum()) == 2, "both directions"
    np.savez(tmp_path / "h.npz", **fields | {"graph": fields["graph"][::-1]})
    with pytest.raises(ValueError, match=r"graph: numbers are not in ascending order"):
        graphs_npz("h.npz", base=tmp_path)
    del fields["y"]
    np.savez(tmp_path / "i.npz", **fields)
    with pytest.raises(ValueError, match=r"no array 'y'\. Expected x, edge_index, graph, y"):
        graphs_npz("i.npz", base=tmp_path)


def test_pixels_of_digits_are_graphs_with_neighbouring_pixels_joined() -> None:
    data = pixel_graphs(threshold=0.5)
    batch = data.validation.__getitems__(range(20))
    row, column = (batch["x"][..., 1:] * 3.5 + 3.5).round().unbind(-1)
    near = (row[:, :, None] - row[:, None]).abs() <= 1
    near &= (column[:, :, None] - column[:, None]).abs() <= 1
    near &= batch["node_mask"][:, :, None] & batch["node_mask"][:, None]
    near &= ~torch.eye(near.shape[1], dtype=torch.bool)
    assert torch.equal(batch["adjacency"], near)
    assert (batch["x"][..., 0][batch["node_mask"]] > 0.5).all()
    assert pixel_graphs(positions=False).train.facts["features"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": torch.full((6, 1), torch.nan)}, "features: values are not finite"),
        ({"features": torch.zeros(5, 1)}, "features: 5 rows for 6 nodes"),
        ({"num_nodes": torch.tensor([3, 0, 3])}, r"graph 1: no nodes\. Expected at least one"),
        ({"edges": torch.tensor([[0], [3]])}, "edges: edge 0 joins graph 0 and graph 1"),
        ({"edges": torch.tensor([[0], [6]])}, r"edges: nodes 0 to 6\. Expected 0 to 5"),
        ({"edges": torch.zeros(2, 1)}, r"edges: torch\.float32 of shape \(2, 1\)"),
        ({"label": torch.zeros(2).long()}, "label: 2 labels for 3 graphs"),
    ],
)
def test_wrong_arrays_are_errors(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Graphs(**arrays() | changes)


def test_an_image_without_nodes_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"threshold: 0\.9999 leaves an image without nodes"):
        pixel_graphs(threshold=0.9999)
