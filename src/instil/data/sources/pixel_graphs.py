"""Source ``pixel_graphs``: graphs of the dark pixels of handwritten digits."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Lt
from torch import Tensor
from typing_extensions import Doc

from instil.data.graph_samples import Graphs
from instil.data.images import ArrayData
from instil.data.sources.digits import digit_parts
from instil.data.splits import Splits


def pixel_graphs(
    threshold: Annotated[
        float,
        Ge(0),
        Lt(1),
        Doc("a pixel is a node if its intensity is above this value, in [0, 1)"),
    ] = 0.3,
    positions: Annotated[
        bool, Doc("whether the features of a node include its row and column in [-1, 1]")
    ] = True,
) -> Splits:
    """Graphs of 1,797 digits: dark pixels are nodes, and edges join the eight neighbours.

    The features of a node are its intensity and, with ``positions``, its position in the image.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: if ``threshold`` leaves an image without nodes.
    """
    train, validation, test = (_graphs(part, threshold, positions) for part in digit_parts())
    return Splits(train, validation, test, train.classes, train.kind)


def _graphs(part: ArrayData, threshold: float, positions: bool) -> Graphs:
    image = part.image[:, 0]
    is_node = image > threshold
    graph, row, column = is_node.nonzero().T
    node = torch.full(image.shape, -1)
    node[is_node] = torch.arange(len(graph))
    features = image[is_node][:, None]
    if positions:
        position = 2 * torch.stack([row, column], 1) / (image.shape[-1] - 1) - 1
        features = torch.cat([features, position], 1)
    counts = graph.bincount(minlength=len(image))
    if (counts == 0).any():
        raise ValueError(
            f"threshold: {threshold} leaves an image without nodes. Expected a smaller value"
        )
    return Graphs(features, _edges(node), counts, part.label, part.classes)


def _edges(node: Tensor) -> Tensor:
    """Edges (2, E) in both directions between neighbouring nodes of maps (N, H, W), -1 for none."""
    edges: list[Tensor] = []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        height, width = node.shape[1:]
        first = node[:, : height - down, max(0, -right) : width - max(0, right)]
        second = node[:, down:, max(0, right) : width - max(0, -right)]
        both = (first >= 0) & (second >= 0)
        pair = torch.stack([first[both], second[both]])
        edges += [pair, pair.flip(0)]
    return torch.cat(edges, 1)
