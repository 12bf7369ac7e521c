"""Source ``digit_links``: edges of a nearest-neighbour graph of handwritten digits."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Lt
from typing_extensions import Doc

from instil.data.links import link_splits
from instil.data.sources.digit_graph import nearest_edges
from instil.data.sources.digits import digit_parts
from instil.data.sources.graph_links import NearbyOption, NegativesOption
from instil.data.splits import Splits

HIDDEN_ROWS = 4
"""Number of pixel rows at the top that the features leave out."""


def digit_links(
    neighbours: Annotated[
        int, Ge(1), Lt(100), Doc("number of nearest digits to which each digit is connected")
    ] = 3,
    negatives: NegativesOption = 6,
    nearby: NearbyOption = 6,
) -> Splits:
    """Edges between 1,797 digits and their nearest ones in Euclidean distance.

    The features are the lower half of the pixels. The edges come from all pixels, so they show a
    graph network more than the features.

    Returns:
        Train, validation and test data for the task ``link_prediction``.

    Raises:
        ValueError: if ``neighbours`` is not in 1 to 99.
    """
    if not 1 <= neighbours < 100:
        raise ValueError(f"neighbours: {neighbours} is out of range. Expected 1 to 99")
    images = torch.cat([part.image for part in digit_parts()])
    edges = nearest_edges(images.flatten(1), neighbours)
    features = images[..., HIDDEN_ROWS:, :].flatten(1)
    return link_splits(features, edges, negatives=negatives, nearby=nearby)
