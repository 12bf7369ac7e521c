"""Handwritten digits as texts: the words are the places that have ink, in reading order."""

from __future__ import annotations

import torch

from instil.data.images import ArrayData
from instil.data.samples import TensorData
from instil.data.sources.digits import digit_parts
from instil.data.splits import Splits

PADDING, START, FIRST = 0, 1, 2
"""Tokens that are no place, and the one of the first of 64 pixels."""
INK = 0.5
LENGTH = 32


def digit_tokens() -> Splits:
    """``input_ids`` and ``attention_mask`` (N, 32): a start token, one token for each pixel that is at least half black, and padding.

    Digits have 13 to 30 such pixels.
    """
    train, validation, test = map(_texts, digit_parts())
    return Splits(train, validation, test, train.classes, train.kind)


def _texts(source: ArrayData) -> TensorData:
    inked = source.image.flatten(1) >= INK
    order = (
        (~inked).long().argsort(dim=1, stable=True)
    )  # places with ink first, each group from the top left on
    said = order + FIRST
    there = torch.arange(inked.shape[1]) < inked.sum(1, keepdim=True)
    ids = torch.cat([torch.full((len(said), 1), START), torch.where(there, said, PADDING)], 1)[
        :, :LENGTH
    ]
    facts = {"vocabulary": FIRST + inked.shape[1], "length": LENGTH}
    return TensorData(
        {"input_ids": ids, "attention_mask": (ids != PADDING).long()},
        source.label,
        source.classes,
        facts,
    )
