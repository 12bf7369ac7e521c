"""Data source of the row ``links``: edges that no earlier search evaluated."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt, Lt
from typing_extensions import Doc

from instil.data.graph_arrays import edge_array, feature_array
from instil.data.link_pairs import distinct_pairs
from instil.data.links import link_splits
from instil.data.sources.graph_links import NearbyOption, NegativesOption
from instil.data.sources.graph_npz import HopsOption
from instil.data.splits import HOLD_OUT_SEED, Splits

USED = 0.2
"""First share of the random order of edges.

The earlier searches drew their test edges (10 %) and validation edges (6 %) from it.
"""


def unseen_links(
    path: Annotated[str, Doc("NumPy archive with a CSR matrix of features and arrays of edges")],
    edges: Annotated[list[str], Doc("arrays (2, E), joined")],
    validation: Annotated[float, Gt(0), Lt(0.5), Doc("share of all edges")] = 0.06,
    test: Annotated[float, Gt(0), Lt(0.5), Doc("share of all edges")] = 0.1,
    hops: HopsOption = 1,
    negatives: NegativesOption = 4,
    nearby: NearbyOption = 4,
) -> Splits:
    """Validation and test edges that were training edges of the source ``graph_links``.

    The order of the edges is that of ``graph_links`` with a random split. The edges that it
    evaluates are training edges here.
    """
    with np.load(path, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    pairs, _ = distinct_pairs(torch.from_numpy(edge_array(arrays, edges)))
    count = pairs.shape[1]
    order = torch.randperm(count, generator=torch.Generator().manual_seed(HOLD_OUT_SEED))
    unseen = order[round(USED * count) :]
    num_test = round(test * count)
    split = torch.zeros(count, dtype=torch.int64)
    split[unseen[: num_test + round(validation * count)]] = 1
    split[unseen[:num_test]] = 2
    features = torch.from_numpy(feature_array(arrays, "x"))
    return link_splits(features, pairs, split, hops=hops, negatives=negatives, nearby=nearby)
