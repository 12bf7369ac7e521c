"""Random shifts and flips that depend on seed, image and view alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import Batch, keyed_uniform

SALT = 7


class Augmentation:
    """Shifts every image by up to ``crop`` pixels (zeros come in) and mirrors half of them with ``flip``.

    What happens to an image is a function of ``seed``, its ``index`` and its ``view``: teacher and student see the same, however the batch is cut.
    """

    def __init__(self, crop: int = 0, flip: bool = False, seed: int = 0):
        if crop < 0:
            raise ValueError(f"augment.crop must be zero or more pixels, not {crop}")
        self.crop, self.flip, self.seed = crop, flip, seed

    def __call__(self, batch: Batch) -> Batch:
        """The batch with other images; ``image`` is (B, C, H, W), ``index`` and ``view`` are int64 (B,)."""
        moment = {"index": batch["index"] + (batch["view"] << 40), "seed": self.seed}
        vertical, horizontal, mirror = keyed_uniform(moment, 3, SALT).unbind(1)
        image: Tensor = batch["image"]
        down = (vertical * (2 * self.crop + 1)).long()
        right = (horizontal * (2 * self.crop + 1)).long()
        return batch | {"image": shifted(image, down, right, self.crop, (mirror < 0.5) & self.flip)}


def shifted(image: Tensor, down: Tensor, right: Tensor, padding: int, mirrored: Tensor) -> Tensor:
    """Of every padded image (B, C, H, W) the window at (``down``, ``right``), mirrored left to right where ``mirrored``."""
    _, channels, height, width = image.shape
    rows = down[:, None] + torch.arange(height, device=image.device)
    columns = torch.arange(width, device=image.device)
    columns = right[:, None] + torch.where(mirrored[:, None], width - 1 - columns, columns)
    padded = F.pad(image, (padding,) * 4)
    place = (rows[:, :, None] * padded.shape[3] + columns[:, None, :]).flatten(1)
    return padded.flatten(2).gather(2, place[:, None].expand(-1, channels, -1)).view_as(image)
