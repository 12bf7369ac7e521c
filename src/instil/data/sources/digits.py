"""Source ``digits``: the UCI handwritten digits, which are part of the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from instil.data.images import ArrayData
from instil.data.splits import HOLD_OUT_SEED, Splits, balanced_order, numbered

TRAIN, VALIDATION, TEST = 1000, 297, 500
"""Number of images of each split."""


def digits() -> Splits:
    """UCI handwritten digits: 1,797 grey images of 8 x 8 pixels in ten classes, for classification.

    1,000 images are for training, 297 for validation and 500 for test, with equal class
    proportions (Alpaydin & Kaynak 1998).

    Returns:
        Train, validation and test data.
    """
    train, validation, test = digit_parts()
    return Splits(train, validation, test, train.classes, train.kind)


def digit_parts() -> tuple[ArrayData, ArrayData, ArrayData]:
    """Return the train, validation and test images, from which other sources are derived."""
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as arrays:
        image = torch.from_numpy(arrays["image"])
        label = torch.from_numpy(arrays["label"])
    whole = ArrayData(image[:, None].float() / 16, label, [str(digit) for digit in range(10)])
    order = balanced_order(whole.label, HOLD_OUT_SEED, proportional=True)
    train, validation, test = (
        numbered(whole, rows) for rows in torch.split(order, [TRAIN, VALIDATION, TEST])
    )
    return train, validation, test
