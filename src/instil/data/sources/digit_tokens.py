"""Source ``digit_tokens``: handwritten digits as sequences of the positions that have ink."""

from __future__ import annotations

import torch

from instil.data.images import ArrayData
from instil.data.samples import TensorData
from instil.data.sources.digits import digit_parts
from instil.data.splits import Splits

PADDING, START, FIRST = 0, 1, 2
"""Ids of the padding token, the start token and the token of the first of 64 pixels."""
INK = 0.5
"""Smallest intensity of a pixel that has a token."""
LENGTH = 32


def digit_tokens() -> Splits:
    """Digits as token sequences in reading order, for text classification.

    ``input_ids`` and ``attention_mask`` (N, 32) hold a start token, one token for each pixel that
    is at least half black, and padding. A digit has 13 to 30 such pixels.

    Returns:
        Train, validation and test data.
    """
    train, validation, test = map(_texts, digit_parts())
    return Splits(train, validation, test, train.classes, train.kind)


def _texts(source: ArrayData) -> TensorData:
    has_ink = source.image.flatten(1) >= INK
    # The stable sort moves pixels with ink to the front and keeps the reading order.
    pixel_tokens = (~has_ink).long().argsort(dim=1, stable=True) + FIRST
    is_token = torch.arange(has_ink.shape[1]) < has_ink.sum(1, keepdim=True)
    start = torch.full((len(pixel_tokens), 1), START)
    ids = torch.cat([start, torch.where(is_token, pixel_tokens, PADDING)], 1)[:, :LENGTH]
    facts = {"vocabulary": FIRST + has_ink.shape[1], "length": LENGTH}
    return TensorData(
        {"input_ids": ids, "attention_mask": (ids != PADDING).long()},
        source.label,
        source.classes,
        facts,
    )
