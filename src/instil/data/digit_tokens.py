"""Handwritten digits as a text: one token a pixel, read row by row."""

from __future__ import annotations

import torch

from instil.data.digits import digit_parts
from instil.data.images import ArrayData
from instil.data.samples import TensorData
from instil.data.splits import Splits

PADDING, START, FIRST = 0, 1, 2
"""Tokens that are no pixel, and the one of a blank pixel."""
LEVELS = 17


def digit_tokens() -> Splits:
    """``input_ids`` (N, 65): a start token, then one of 17 grey levels a pixel; the blank end of an image is padding, 0 in ``attention_mask``."""
    train, validation, test = map(_texts, digit_parts())
    return Splits(train, validation, test, train.classes, train.kind)


def _texts(source: ArrayData) -> TensorData:
    level = (source.image.flatten(1) * (LEVELS - 1)).round().long()
    ids = torch.cat([torch.full((len(level), 1), START), level + FIRST], 1)
    inked = torch.cat([torch.ones(len(level), 1, dtype=torch.bool), level > 0], 1)
    mask = inked.long().flip(1).cummax(1).values.flip(1)  # up to the last pixel with ink
    ids = torch.where(mask > 0, ids, PADDING)
    facts = {"vocabulary": FIRST + LEVELS, "length": ids.shape[1]}
    return TensorData({"input_ids": ids, "attention_mask": mask}, source.label, source.classes, facts)
