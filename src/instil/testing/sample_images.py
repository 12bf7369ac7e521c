"""Sample outputs of one side for tasks with real labels of pixels and keypoints.

The order of the draws in a function decides the values.
"""

from __future__ import annotations

from instil.core import Outputs
from instil.testing.sample_sides import FEATURE_SHAPES, IMAGE_SIZE, Draw

NUM_KEYPOINTS = 2


def depth(draw: Draw, side: str) -> Outputs:
    """Depths of each pixel, channel-last, and feature levels."""
    return {
        "logits": draw(IMAGE_SIZE, IMAGE_SIZE, 1).exp(),
        "features": tuple(draw(channels, size, size) for channels, size in FEATURE_SHAPES[side]),
    }


def pose(draw: Draw, side: str) -> Outputs:
    """Distributions over the columns and rows of two keypoints, their positions, and features."""
    return {
        "x_logits": 2 * draw(NUM_KEYPOINTS, IMAGE_SIZE),
        "y_logits": 2 * draw(NUM_KEYPOINTS, IMAGE_SIZE),
        "logits": draw(NUM_KEYPOINTS, 2),
        "features": tuple(draw(channels, size, size) for channels, size in FEATURE_SHAPES[side]),
    }
