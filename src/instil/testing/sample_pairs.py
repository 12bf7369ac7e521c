"""Sample outputs of one side for pairs of images and texts, or of two texts."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import Outputs
from instil.testing.sample_sides import NUM_CLASSES, WIDTHS, Draw

LOGIT_SCALES = {"student": 12.0, "teacher": 16.0}
"""Scales of image-text similarities."""
NUM_REGIONS = 3
REGION_WIDTH = 8
"""Width of the embeddings of image regions, the same for both sides."""


def image_text(draw: Draw, side: str) -> Outputs:
    """Embeddings of N pairs of image and text, of classes and regions, and a scale."""
    image = draw(WIDTHS[side])
    text = draw(WIDTHS[side])
    return {
        "image_embedding": image,
        "text_embedding": text + image / 2,
        "class_embedding": _class_embedding(image),
        "region_embedding": draw(NUM_REGIONS * REGION_WIDTH).view(-1, NUM_REGIONS, REGION_WIDTH),
        "logit_scale": torch.full((1,), LOGIT_SCALES[side], dtype=image.dtype),
    }


def _class_embedding(image: Tensor) -> Tensor:
    """Embeddings (NUM_CLASSES, D) of classes, the same for all samples."""
    entries = torch.arange(NUM_CLASSES * image.shape[1], dtype=image.dtype)
    return (7 * entries).sin().view(NUM_CLASSES, -1)


def sentence_embedding(draw: Draw, side: str) -> Outputs:
    """Embeddings of N pairs of sentences, and the scale of all similarities."""
    first = draw(WIDTHS[side])
    partner = draw(WIDTHS[side])
    return {
        "sentence_embedding": first,
        "partner_embedding": partner + first / 2,
        "logit_scale": torch.full((1,), LOGIT_SCALES[side], dtype=first.dtype),
    }
