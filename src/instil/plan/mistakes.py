"""Images of the test samples that the exported student classifies wrongly."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.experiment.experiment import Experiment
from instil.experiment.network_inputs import exported_student
from instil.files.atomic import atomic
from instil.functional.pictures import encode_png
from instil.networks.network_call import read_keys
from instil.plan.run_folder import RunFolder

MIN_SIZE = 64
"""Pixels of the longer side; smaller images are enlarged by a whole factor."""

MAX_SIZE = 128
"""Pixels of the longer side; larger images are reduced to this."""


def write_mistakes(experiment: Experiment, folder: RunFolder) -> None:
    """Write ``checkpoint/mistake-N.png`` for each mistake that ``result.json`` lists.

    Nothing is written for a task without images.
    """
    result: dict[str, Any] = folder.read_json("result.json") or {}
    mistakes = result.get("details", {}).get(experiment.recipe.exported_arm, {}).get("mistakes", [])
    if not mistakes:
        return
    batch = experiment.splits.test.__getitems__([mistake["row"] for mistake in mistakes])
    images = read_keys(batch, exported_student(experiment.recipe).reads)["image"]
    for index, image in enumerate(images):
        with atomic(folder.path / "checkpoint" / f"mistake-{index}.png") as temporary:
            temporary.write_bytes(encode_png(thumbnail(image)))


def thumbnail(image: Tensor) -> Tensor:
    """Resize an image so that its longer side has between 64 and 128 pixels.

    Images with other than three channels are shown as the mean of their channels.

    Args:
        image: (C, H, W) in [0, 1].

    Returns:
        Pixels (H, W, 1 or 3), uint8.
    """
    image = image.detach().float().cpu().clamp(0, 1)
    image = image if len(image) == 3 else image.mean(0, keepdim=True)
    longest = max(image.shape[1:])
    if longest < MIN_SIZE:
        image = F.interpolate(image[None], scale_factor=-(-MIN_SIZE // longest))[0]
    elif longest > MAX_SIZE:
        size = [max(1, round(side * MAX_SIZE / longest)) for side in image.shape[1:]]
        image = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    return (image * 255).round().to(torch.uint8).permute(1, 2, 0)
