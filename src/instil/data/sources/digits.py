"""UCI handwritten digits: 1,797 grey images of 8 x 8 pixels in ten classes, in the package itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from instil.data.images import ArrayData
from instil.data.splits import HOLD_OUT_SEED, Splits, balanced_order, numbered

TRAIN, VALIDATION, TEST = 1000, 297, 500


def digits() -> Splits:
    """1,000 images to train on, 297 for validation, 500 for test; every set has the classes in the same proportion (Alpaydin & Kaynak 1998)."""
    train, validation, test = digit_parts()
    return Splits(train, validation, test, train.classes, train.kind)


def digit_parts() -> tuple[ArrayData, ArrayData, ArrayData]:
    """The train, validation and test images, for sources that make something else of them."""
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as arrays:
        image, label = torch.from_numpy(arrays["image"]), torch.from_numpy(arrays["label"])
    whole = ArrayData(image[:, None].float() / 16, label, [str(digit) for digit in range(10)])
    order = balanced_order(whole.label, HOLD_OUT_SEED, proportional=True)
    train, validation, test = (
        numbered(whole, rows) for rows in torch.split(order, [TRAIN, VALIDATION, TEST])
    )
    return train, validation, test
