"""Source ``digit_graph``: a nearest-neighbour graph of handwritten digits."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.data.nodes import Nodes
from instil.data.sources.digits import digit_parts
from instil.data.splits import Splits


def digit_graph(
    neighbours: Annotated[
        int, Doc("number of nearest digits to which each digit is connected, 1 to 99")
    ] = 5,
    hops: Annotated[
        int,
        Doc("distance in edges of the neighbours in a batch; at least the layers of the network"),
    ] = 2,
) -> Splits:
    """Graph of 1,797 digits, each connected both ways to its nearest in Euclidean distance.

    Features are the pixels. All splits are nodes of one graph, labelled only in their own split
    (the transductive setting of Kipf & Welling 2017).

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: if ``neighbours`` is not in 1 to 99 or ``hops`` is below 1.
    """
    if not 1 <= neighbours < 100:
        raise ValueError(f"neighbours: {neighbours} is out of range. Expected 1 to 99")
    if hops < 1:
        raise ValueError(f"hops: {hops} is too small. Expected at least 1")
    parts = digit_parts()
    features = torch.cat([part.image.flatten(1) for part in parts])
    edges = nearest_edges(features, neighbours)
    starts = torch.tensor([0, *(len(part) for part in parts)]).cumsum(0)
    train, validation, test = (
        Nodes(features, edges, hops, part.label, part.classes, torch.arange(len(part)) + start)
        for part, start in zip(parts, starts[:-1], strict=True)
    )
    return Splits(train, validation, test, train.classes, train.kind)


def nearest_edges(features: Tensor, neighbours: int) -> Tensor:
    """Return edges (2, E) to the nearest rows, in both directions, without duplicates and loops.

    Args:
        features: (M, F).
        neighbours: number of nearest rows of each row.
    """
    # In double precision ties between neighbours are resolved equally on every machine.
    distance = torch.cdist(features.double(), features.double()).fill_diagonal_(torch.inf)
    near = distance.topk(neighbours, largest=False).indices
    joined = torch.zeros(len(features), len(features), dtype=torch.bool).scatter_(1, near, True)
    return (joined | joined.T).nonzero().T.contiguous()
