"""Source ``graphs_npz``: many labelled graphs from one NumPy archive."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from typing_extensions import Doc

from instil.data.archive import archive_class_names, named_errors, read_arrays
from instil.data.graph_arrays import edge_array, label_array, split_array
from instil.data.graph_samples import Graphs
from instil.data.labels import class_index_names
from instil.data.paths import located
from instil.data.samples import Samples
from instil.data.splits import Splits, TestOption, ValidationOption, splits
from instil.data.tables import SPLITS

ARRAYS = ("x", "edge_index", "graph", "y")
"""Arrays that an archive must have."""


def graphs_npz(
    path: Annotated[str, Doc("file, relative to the recipe or to the working directory")],
    classes: Annotated[
        list[str] | None, Doc("class names; null: the array `classes`, or indices")
    ] = None,
    directed: Annotated[bool, Doc("false: the reverse of each edge is added")] = False,
    validation: ValidationOption = 0.15,
    test: TestOption = 0.15,
    base: Path = Path(),
) -> Splits:
    """Labelled graphs: arrays ``x``, ``edge_index``, ``graph``, ``y`` and, optionally, ``split``.

    ``x`` (M, F) holds the features of all nodes, and ``graph`` (M,) the graph of each node in
    ascending order from 0. ``edge_index`` (2, E) holds pairs of rows of ``x``. ``y`` has class
    indices (N,), or (N, C) for several classes. ``split`` (N,) is 0 train, 1 validation, 2 test and
    -1 none.

    Args:
        base: folder that relative paths start from.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for a file that cannot be read, a missing array, and wrong values.
    """
    file = located(path, base)
    arrays = read_arrays(file)
    missing = [name for name in ARRAYS if name not in arrays]
    if missing:
        raise ValueError(
            f"{file}: no array '{missing[0]}'. Expected {', '.join(ARRAYS)}, got "
            f"{', '.join(arrays) or 'nothing'}"
        )
    with named_errors(file):
        whole = _graphs(arrays, classes, directed)
        if "split" not in arrays:
            return splits({"train": whole}, validation, test)
        return splits(_by_split(whole, arrays["split"]), validation, test)


def _graphs(arrays: Mapping[str, Any], classes: list[str] | None, directed: bool) -> Graphs:
    """All graphs of a file."""
    label = torch.from_numpy(label_array(arrays["y"]))
    graph = torch.from_numpy(arrays["graph"].astype(np.int64))
    edges = torch.from_numpy(edge_array(arrays, "edge_index"))
    if not directed and edges.ndim == 2:
        edges = torch.cat([edges, edges.flip(0)], 1)
    if (graph.diff() < 0).any() or (len(graph) and int(graph[0]) < 0):
        raise ValueError("graph: numbers are not in ascending order from 0. Sort the nodes")
    return Graphs(
        torch.from_numpy(arrays["x"].astype(np.float32)),
        edges,
        graph.bincount(minlength=len(label)),
        label,
        classes or archive_class_names(arrays) or class_index_names(label),
    )


def _by_split(whole: Graphs, values: Any) -> dict[str, Samples]:
    """Graphs of each split that has any."""
    split = torch.from_numpy(split_array(values, len(whole)))
    parts: dict[str, Samples] = {}
    for value, name in enumerate(SPLITS):
        rows = (split == value).nonzero().flatten()
        if len(rows):
            parts[name] = whole.subset(rows)
    return parts
