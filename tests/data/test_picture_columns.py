"""Pictures in the columns of a table, with channels in any place."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from instil.data.column_samples import column_samples
from instil.data.columns import column_of

GREY = (np.arange(3 * 8 * 10) % 200).reshape(3, 8, 10)
COLOUR = np.stack([GREY, GREY, GREY + 55], -1)


@pytest.mark.parametrize(
    ("depth", "shape", "largest"),
    [
        (GREY.astype(np.uint8), (1, 8, 10), 199 / 255),
        (GREY.astype(np.uint16), (1, 8, 10), 199 / 65535),
        (GREY.astype(np.float32), (1, 8, 10), 199),
        (COLOUR.astype(np.float32), (3, 8, 10), 254),
        (GREY[:, :5].astype(np.float32), (5, 10), 199),
    ],
)
def test_a_second_picture_has_its_channels_first(
    depth: np.ndarray, shape: tuple[int, ...], largest: float
) -> None:
    image = COLOUR.astype(np.uint8)
    samples = column_samples({"depth": depth, "image": image, "label": np.arange(3)})
    batch = samples.__getitems__([0, 1, 2])
    assert batch["image"].shape == (3, 3, 8, 10)
    assert batch["depth"].shape == (3, *shape)
    assert float(batch["depth"].max()) == pytest.approx(largest)
    if len(shape) == 3:
        torch.testing.assert_close(
            batch["depth"][:, 0] / batch["depth"].max(),
            torch.from_numpy(GREY).float() / float(depth.max()),
        )


def test_points_of_several_moments_are_no_pictures() -> None:
    joints = np.random.default_rng(0).normal(size=(3, 6, 5, 3)).astype(np.float32)
    image = COLOUR.astype(np.uint8)
    samples = column_samples({"joints": joints, "image": image, "label": np.arange(3)})
    torch.testing.assert_close(samples[0]["joints"], torch.from_numpy(joints[0]))


def test_a_picture_next_to_other_inputs_lies_in_the_unit_range() -> None:
    image = COLOUR.astype(np.float32)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], these go from 0 to 254"):
        column_samples({"depth": GREY, "image": image, "label": np.arange(3)})


def encoded(picture: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    return file.getvalue()


def test_encoded_pictures_are_read_as_those_of_folders() -> None:
    grey = GREY[0].astype(np.uint8)
    deep = encoded(Image.fromarray(grey.astype(np.uint16) * 257))
    column = column_of([encoded(Image.fromarray(grey)), deep], "image")
    assert isinstance(column, np.ndarray)
    np.testing.assert_allclose(column[1], grey[None] / 255, atol=1e-6)
    np.testing.assert_allclose(column[0], column[1], atol=1e-6)
    quarter_turn = Image.Exif()
    quarter_turn[0x0112] = 6
    turned = column_of([encoded(Image.fromarray(grey), exif=quarter_turn)], "image")
    assert isinstance(turned, np.ndarray)
    assert (turned[0, 0] == np.rot90(grey, -1)).all()
    clear = Image.fromarray(np.dstack([grey, grey, grey, np.zeros_like(grey)]))
    white = column_of([encoded(clear)], "image")
    assert isinstance(white, np.ndarray)
    assert (white == 255).all()
