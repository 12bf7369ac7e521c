"""Source ``graph_npz``: features, edges, labels and splits of a graph from one NumPy archive."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Doc

from instil.data.archive import archive_class_names, named_errors, read_arrays
from instil.data.graph_arrays import (
    array,
    edge_array,
    feature_array,
    label_array,
    split_array,
)
from instil.data.graphs import MASKS, graph_splits
from instil.data.paths import located
from instil.data.splits import Splits, TestOption, ValidationOption

SPLITS = ("train", "validation", "test")
"""Names of the values 0, 1 and 2 of ``split``."""


EdgesOption = Annotated[
    str | list[str], Doc("array (2, E) of source and target, or several of them, joined")
]
ClassesOption = Annotated[
    list[str] | None, Doc("class names; null: the array `classes`, or indices")
]
HopsOption = Annotated[
    int,
    Ge(1),
    Doc(
        "distance in edges of the neighbours in a batch: at least the layers of the network, "
        "one more for layers that divide by the degrees of both ends"
    ),
]
TransductiveOption = Annotated[
    bool, Doc("whether the training samples include all other nodes without their labels")
]
PositionsOption = Annotated[
    int, Ge(0), Doc("number of position features in the batch key `x_positions`; 0: none")
]
InductiveOption = Annotated[
    float,
    Ge(0),
    Le(1),
    Doc(
        "share of the test nodes that are unknown in training, like the validation nodes and the "
        "edges of both; only these are evaluated; 0: all nodes are training samples"
    ),
]
TransferNodesOption = Annotated[
    int | None,
    Ge(0),
    Doc(
        "number of test nodes that are training samples without a label; other nodes are in "
        "training batches as neighbours only, and only these are evaluated; null: all nodes"
    ),
]
FanoutOption = Annotated[
    int | None,
    Ge(1),
    Doc("largest number of sampled edges into a node in a training batch; null: all edges"),
]
LabelPriorOption = Annotated[
    bool, Doc("whether networks may read the training labels of other nodes, as `cpf` does")
]


def graph_npz(
    path: Annotated[str, Doc("file, relative to the recipe or to the working directory")],
    features: Annotated[str, Doc("array (M, F) of the node features")] = "x",
    edges: EdgesOption = "edge_index",
    label: Annotated[str, Doc("array (M,) of class indices, -100 for no label")] = "y",
    classes: ClassesOption = None,
    hops: HopsOption = 2,
    transductive: TransductiveOption = True,
    inductive: InductiveOption = 0.0,
    transfer_nodes: TransferNodesOption = None,
    fanout: FanoutOption = None,
    positions: PositionsOption = 0,
    label_prior: LabelPriorOption = False,
    directed: Annotated[bool, Doc("false: the reverse of each edge is added")] = False,
    validation: ValidationOption = 0.15,
    test: TestOption = 0.15,
    base: Path = Path(),
) -> Splits:
    """Nodes of one graph: arrays ``x``, ``edge_index``, ``y`` and the splits.

    Splits are ``split`` (M,) with 0 train, 1 validation, 2 test and -1 none, or the masks
    ``train_mask``, ``val_mask`` and ``test_mask`` (M,). Nodes in no split have no label. Loops and
    repeated edges are removed. A node without an edge is classified by its own features. Sparse
    features are the arrays ``x_indptr`` and ``x_indices`` of a CSR matrix, with ones or ``x_data``
    as values.

    Args:
        base: folder that relative paths start from.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for a file that cannot be read, a missing array, and wrong values.
    """
    file = located(path, base)
    arrays = read_arrays(file)
    with named_errors(file):
        joined = edge_array(arrays, edges)
        target = torch.from_numpy(label_array(array(arrays, label, "label")))
        return graph_splits(
            torch.from_numpy(feature_array(arrays, features)),
            torch.from_numpy(joined),
            target,
            _masks(arrays, len(target)),
            classes or archive_class_names(arrays),
            hops=hops,
            transductive=transductive,
            inductive=inductive,
            transfer_nodes=transfer_nodes,
            fanout=fanout,
            positions=positions,
            label_prior=label_prior,
            directed=directed,
            shares=(validation, test),
        )


def _masks(arrays: Mapping[str, NDArray[np.generic]], num_nodes: int) -> dict[str, Tensor]:
    """Mask (M,) of each split that the file has."""
    if "split" in arrays:
        split = split_array(arrays["split"], num_nodes)
        masks = {name: torch.from_numpy(split == value) for value, name in enumerate(SPLITS)}
        return {name: mask for name, mask in masks.items() if mask.any()}
    present = {split: name for split, name in MASKS.items() if name in arrays}
    return {split: torch.from_numpy(arrays[name].astype(bool)) for split, name in present.items()}
