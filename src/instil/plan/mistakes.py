"""Pictures of the test images that the shipped student gets wrong."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.experiment.experiment import Experiment
from instil.files.atomic import atomic
from instil.plan.pictures import encode_png
from instil.plan.run_folder import RunFolder

SMALLEST, LARGEST = 64, 128
"""Pixels of the longer side: smaller images are enlarged, larger ones reduced."""


def write_mistakes(experiment: Experiment, folder: RunFolder) -> None:
    """Write ``checkpoint/mistake-N.png`` for each mistake that the result lists.

    Nothing is written for a task without images.
    """
    result: dict[str, Any] = folder.read_json("result.json") or {}
    mistakes = result.get("details", {}).get("distilled", {}).get("mistakes", [])
    if not mistakes:
        return
    images = experiment.splits.test.__getitems__([mistake["row"] for mistake in mistakes])["image"]
    for index, image in enumerate(images):
        with atomic(folder.path / "checkpoint" / f"mistake-{index}.png") as temporary:
            temporary.write_bytes(encode_png(thumbnail(image)))


def thumbnail(image: Tensor) -> Tensor:
    """An image (C, H, W) in [0, 1] as bytes (H, W, 1 or 3) of a size that is easy to look at.

    Other numbers of channels than three become their mean.
    """
    image = image.detach().float().cpu().clamp(0, 1)
    image = image if len(image) == 3 else image.mean(0, keepdim=True)
    longest = max(image.shape[1:])
    if longest < SMALLEST:
        image = F.interpolate(image[None], scale_factor=-(-SMALLEST // longest))[0]
    elif longest > LARGEST:
        size = [max(1, round(side * LARGEST / longest)) for side in image.shape[1:]]
        image = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    return (image * 255).round().to(torch.uint8).permute(1, 2, 0)
