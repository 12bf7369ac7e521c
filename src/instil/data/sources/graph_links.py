"""Source ``graph_links``: edges of a graph from one NumPy archive, for link prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from typing_extensions import Doc

from instil.data.archive import named_errors, read_arrays
from instil.data.graph_arrays import array, edge_array, feature_array, split_array
from instil.data.links import link_splits
from instil.data.paths import located
from instil.data.sources.graph_npz import EdgesOption, FanoutOption, HopsOption
from instil.data.splits import Splits

ShareOption = Annotated[float, Gt(0), Lt(1), Doc("share of the edges, for a random split")]
NegativesOption = Annotated[
    int, Ge(1), Doc("random nodes without an edge to the anchor, for each training sample")
]
NearbyOption = Annotated[
    int, Ge(0), Doc("nodes of random walks from the anchor, without labels, for each sample")
]
WalkOption = Annotated[int, Ge(1), Doc("number of steps of a random walk")]
EvalNegativesOption = Annotated[
    int, Ge(1), Doc("nodes without an edge to the anchor, for each validation and test edge")
]
PartsOption = Annotated[
    int,
    Ge(2),
    Doc(
        "number of parts of the training edges; networks do not read the edges of a part for "
        "the samples of this part"
    ),
]
AllAnchorsOption = Annotated[
    bool, Doc("whether nodes without a training edge are training samples without labels")
]


def graph_links(
    path: Annotated[str, Doc("file, relative to the recipe or to the working directory")],
    features: Annotated[str, Doc("array (M, F) of the node features")] = "x",
    edges: EdgesOption = "edge_index",
    split: Annotated[
        str | None, Doc("array (E,) of 0 train, 1 validation, 2 test; null: a random split")
    ] = None,
    validation: ShareOption = 0.1,
    test: ShareOption = 0.1,
    hops: HopsOption = 2,
    fanout: FanoutOption = None,
    negatives: NegativesOption = 6,
    nearby: NearbyOption = 6,
    walk_length: WalkOption = 2,
    eval_negatives: EvalNegativesOption = 100,
    parts: PartsOption = 4,
    all_anchors: AllAnchorsOption = True,
    base: Path = Path(),
) -> Splits:
    """Edges of one graph: arrays ``x`` and ``edge_index``, as in the source ``graph_npz``.

    Samples are those of the task ``link_prediction``: a node and candidates for an edge.

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
        pairs = edge_array(arrays, edges)
        values = None
        if split is not None:
            values = torch.from_numpy(split_array(array(arrays, split, "split"), pairs.shape[1]))
        return link_splits(
            torch.from_numpy(feature_array(arrays, features)),
            torch.from_numpy(pairs),
            values,
            validation=validation,
            test=test,
            hops=hops,
            fanout=fanout,
            negatives=negatives,
            nearby=nearby,
            walk_length=walk_length,
            eval_negatives=eval_negatives,
            parts=parts,
            all_anchors=all_anchors,
        )
