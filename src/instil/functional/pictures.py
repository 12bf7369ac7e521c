"""A grid of images as a PNG file."""

from __future__ import annotations

import struct
import zlib

import torch
import torch.nn.functional as F
from torch import Tensor

NUM_COLUMNS = 8
"""Images in a row of a grid."""

MIN_SIZE = 48
"""Pixels of the longer side; smaller images are enlarged by a whole factor."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def image_grid(images: Tensor) -> Tensor:
    """Arrange images in rows of eight on white.

    Small images are enlarged. Images with other than three channels are shown as the mean of
    their channels.

    Args:
        images: (N, C, H, W) in [0, 1].

    Returns:
        Pixels (rows, columns, 1 or 3), uint8.
    """
    images = images.detach().float().cpu().clamp(0, 1)
    images = images if images.shape[1] == 3 else images.mean(1, keepdim=True)
    images = F.interpolate(images, scale_factor=-(-MIN_SIZE // max(images.shape[2:])))
    images = F.pad(images, (2, 2, 2, 2), value=1.0)
    num_missing = -len(images) % NUM_COLUMNS
    images = torch.cat([images, images.new_ones(num_missing, *images.shape[1:])])
    num_images, channels, height, width = images.shape
    grid = images.view(num_images // NUM_COLUMNS, NUM_COLUMNS, channels, height, width)
    pixels = (grid.permute(0, 3, 1, 4, 2) * 255).round().to(torch.uint8)
    return pixels.reshape(-1, NUM_COLUMNS * width, channels)


def encode_png(pixels: Tensor) -> bytes:
    """Encode pixels (H, W, 1 or 3), uint8, as a PNG file."""
    height, width, channels = pixels.shape
    # Each line starts with the type of its filter; 0 means no filter.
    no_filter = torch.zeros(height, 1, dtype=torch.uint8)
    lines = torch.cat([no_filter, pixels.flatten(1)], 1)
    color_type = 2 if channels == 3 else 0
    header = struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0)
    chunks = (
        _png_chunk(b"IHDR", header),
        _png_chunk(b"IDAT", zlib.compress(lines.numpy().tobytes())),
        _png_chunk(b"IEND", b""),
    )
    return PNG_SIGNATURE + b"".join(chunks)


def _png_chunk(name: bytes, data: bytes) -> bytes:
    """Length, name, data and checksum of a chunk."""
    checksum = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + checksum
