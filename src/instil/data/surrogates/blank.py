"""Black placeholder images, for schemes that synthesize their training images."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import Batch, batch_size
from instil.data.surrogate_images import ImageSource


class Placeholder(ImageSource):
    """Black images of the right shape."""

    def __call__(self, moment: Batch, shape: tuple[int, int, int]) -> Tensor:
        return torch.zeros(1, *shape).expand(batch_size(moment), -1, -1, -1)
