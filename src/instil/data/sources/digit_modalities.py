"""Source ``digit_modalities``: digits as grey image, as edges and in low resolution."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Doc

from instil.core import NonNegative
from instil.data.images import ArrayData
from instil.data.samples import TensorData
from instil.data.sources.digits import digit_parts
from instil.data.splits import Splits


def digit_modalities(
    noise: Annotated[
        NonNegative, Doc("standard deviation of the noise of a pixel of image and edges")
    ] = 0.5,
) -> Splits:
    """Paired modalities of the digits that are part of the package, for cross-modal distillation.

    Samples have ``image`` (1, 8, 8), ``edges`` (1, 8, 8), the gradient of the digit with noise of
    its own, ``both`` (2, 8, 8), image and edges as channels, and ``small`` (1, 4, 4), the digit in
    low resolution without noise. A network chooses one with ``reads: {image: small}``.

    Returns:
        Train, validation and test data: 1000, 297 and 500 samples.
    """
    train, validation, test = (
        _part(digits, seed, noise) for seed, digits in enumerate(digit_parts())
    )
    return Splits(train, validation, test, train.classes, train.kind)


def _part(digits: ArrayData, seed: int, noise: float) -> TensorData:
    generator = torch.Generator().manual_seed(seed)
    clean = digits.image
    both = torch.cat([clean, edge_strength(clean)], 1)
    both = (both + noise * torch.randn(both.shape, generator=generator)).clamp(0, 1)
    tensors = {
        "image": both[:, :1].contiguous(),
        "edges": both[:, 1:].contiguous(),
        "both": both,
        "small": F.avg_pool2d(clean, 2),
    }
    return TensorData(tensors, digits.label, digits.classes, {"channels": 1, "size": 8})


def edge_strength(image: Tensor) -> Tensor:
    """Length of the gradient of an image, from central differences, at most 1.

    Args:
        image: (N, 1, H, W).

    Returns:
        (N, 1, H, W).
    """
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    right = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    return torch.hypot(right, down).clamp(max=1)
