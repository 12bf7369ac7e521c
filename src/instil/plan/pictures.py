"""Some of the images that a student learnt from, as a file that a browser shows."""

from __future__ import annotations

import struct
import zlib

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import Scheme, side_effect_free
from instil.engine import init_distributed
from instil.experiment.experiment import Experiment
from instil.experiment.training_options import num_training_steps
from instil.tasks.bases.task import to_device

ACROSS, SMALLEST = 8, 48
"""Images in a row, and the least pixels that each is shown in."""


def image_grid(images: Tensor) -> Tensor:
    """Images (N, C, H, W) in [0, 1] side by side on white, small ones enlarged, as bytes (H, W, 1 or 3); other channels than three as their mean."""
    images = images.detach().float().cpu().clamp(0, 1)
    images = images if images.shape[1] == 3 else images.mean(1, keepdim=True)
    images = F.interpolate(images, scale_factor=-(-SMALLEST // max(images.shape[2:])))
    images = F.pad(images, (2, 2, 2, 2), value=1.0)
    missing = -len(images) % ACROSS
    images = torch.cat([images, images.new_ones(missing, *images.shape[1:])])
    number, channels, height, width = images.shape
    rows = images.view(number // ACROSS, ACROSS, channels, height, width).permute(0, 3, 1, 4, 2)
    return (rows * 255).round().to(torch.uint8).reshape(-1, ACROSS * width, channels)


def encode_png(pixels: Tensor) -> bytes:
    """Bytes (H, W, 1 or 3) as a PNG file."""
    height, width, channels = pixels.shape
    lines = torch.cat(
        [torch.zeros(height, 1, dtype=torch.uint8), pixels.flatten(1)], 1
    )  # each line says first that it is not filtered
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.numpy().tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


def synthetic_images(scheme: Scheme, stage: Experiment, seed: int) -> Tensor | None:
    """Images that a scheme made at the end of its training; all ranks must call it.

    Args:
        scheme: after training.
        stage: whose samples give the form of the images.
        seed: of the arm.

    Returns:
        (N, C, H, W) in [0, 1], None if it makes none.
    """
    batch = next(iter(stage.loader(stage.samples, seed)))
    clock = {
        "step": torch.tensor(num_training_steps(stage)),
        "progress": torch.tensor(1.0),
        "seed": torch.tensor(seed),
    }
    with side_effect_free(scheme):
        return scheme.pictures(to_device(batch, init_distributed()) | clock)
