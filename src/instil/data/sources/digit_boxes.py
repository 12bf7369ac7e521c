"""One handwritten digit in a noisy scene, with its class and its box."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.data.images import ArrayData
from instil.data.samples import TensorData
from instil.data.sources.digits import digit_parts
from instil.data.splits import Splits

SEEDS = (0, 1, 2)  # of train, validation and test
INK = 0.3  # of a digit's pixels, those at least so dark are the digit
NOISE = 0.3  # the ground lies between black and this


def digit_boxes(size: int = 16, largest: int = 14) -> Splits:
    """The digits, each drawn 8 to ``largest`` pixels high and as many wide, anywhere in a scene of ``size`` x ``size``.

    ``image`` (N, 1, H, W), ``label`` (N,), and ``box`` (N, 4): left, top, right and bottom edge of the ink, in pixels from the left or the top,
    of which each is a bin (``bins``: ``size`` + 1).

    Raises ValueError unless 8 <= ``largest`` <= ``size``.
    """
    if not 8 <= largest <= size:
        raise ValueError(f"8 <= largest <= size is needed, not {largest} and {size}")
    train, validation, test = (
        _scenes(part, seed, size, largest) for part, seed in zip(digit_parts(), SEEDS, strict=True)
    )
    return Splits(train, validation, test, train.classes, train.kind)


def _scenes(source: ArrayData, seed: int, size: int, largest: int) -> TensorData:
    generator = torch.Generator().manual_seed(seed)
    image = NOISE * torch.rand(len(source), 1, size, size, generator=generator)
    shape = torch.randint(8, largest + 1, (len(source), 2), generator=generator)
    corner = (torch.rand(len(source), 2, generator=generator) * (size + 1 - shape)).long()
    box = torch.zeros(len(source), 4)
    for row, ((height, width), (top, left)) in enumerate(
        zip(shape.tolist(), corner.tolist(), strict=True)
    ):
        digit = F.interpolate(
            source.image[row : row + 1], (height, width), mode="bilinear", antialias=True
        )[0, 0]
        place = image[row, 0, top : top + height, left : left + width]
        place[:] = torch.maximum(place, digit)
        box[row] = _edges(digit >= INK) + torch.tensor([left, top, left, top])
    return TensorData(
        {"image": image, "box": box},
        source.label,
        source.classes,
        {"channels": 1, "size": size, "bins": size + 1},
    )


def _edges(ink: Tensor) -> Tensor:
    """Left, top, right and bottom edge of what is True in (H, W)."""
    row, column = ink.nonzero().T
    return torch.stack([column.min(), row.min(), column.max() + 1, row.max() + 1])
