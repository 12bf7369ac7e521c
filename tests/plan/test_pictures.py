"""Grid of images, read from its PNG file."""

from __future__ import annotations

import struct
import zlib

import pytest
import torch
from torch import Tensor

from instil.functional.pictures import encode_png, image_grid


def read(data: bytes) -> Tensor:
    """Return the pixels of an unfiltered PNG file; all checksums are verified."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, offset = {}, 8
    while offset < len(data):
        (length,) = struct.unpack(">I", data[offset : offset + 4])
        name, body = data[offset + 4 : offset + 8], data[offset + 8 : offset + 8 + length]
        assert struct.unpack(">I", data[offset + 8 + length : offset + 12 + length]) == (
            zlib.crc32(name + body),
        )
        chunks[name], offset = body, offset + 12 + length
    width, height, depth, kind = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert depth == 8
    lines = torch.frombuffer(bytearray(zlib.decompress(chunks[b"IDAT"])), dtype=torch.uint8).view(
        height, -1
    )
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, {0: 1, 2: 3}[kind])


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_arranged_in_rows_of_eight_and_enlarged(channels: int) -> None:
    images = torch.rand(11, channels, 8, 6)
    pixels = read(encode_png(image_grid(images)))
    height, width = 8 * 6 + 4, 6 * 6 + 4
    assert pixels.shape == (2 * height, 8 * width, channels)
    ninth = pixels[height + 2 : 2 * height - 2, 2 : width - 2][::6, ::6].permute(2, 0, 1)
    assert torch.equal(ninth, (images[8] * 255).round().to(torch.uint8))
    assert (pixels[height:, 3 * width :] == 255).all()


def test_other_channels_are_shown_as_their_mean() -> None:
    images = torch.rand(2, 5, 64, 64)
    assert torch.equal(image_grid(images), image_grid(images.mean(1, keepdim=True)))
