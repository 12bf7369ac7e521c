"""Images of every mode: 16 bits, alpha, palettes, CMYK, orientation, and damaged files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from instil.data import picture_check
from instil.data.images import LazyData
from instil.data.pictures import Files, pictures
from instil.data.sources.folder import folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))


def read(path: Path, channels: int | None = None, **options: Any) -> torch.Tensor:
    """Return the image as tensor of a data set: (C, H, W) in [0, 1]."""
    reader = pictures(Files((path,)), channels, options.pop("size", None), **options)
    return LazyData(reader, torch.tensor([0]), ["a"]).__getitems__([0])["image"][0]


def saved(path: Path, array: np.ndarray[Any, Any], mode: str | None = None, **options: Any) -> Path:
    Image.fromarray(array, mode).save(path, **options) if mode is None else Image.fromarray(
        array
    ).convert(mode).save(path, **options)
    return path


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_16_bits_are_scaled_and_stay_grey(tmp_path: Path, extension: str) -> None:
    values = np.array([[0, 3000], [40000, 65535]], np.uint16)
    image = read(saved(tmp_path / f"a.{extension}", values))
    assert image.shape == (1, 2, 2)
    torch.testing.assert_close(image[0], torch.tensor(values.astype(np.float32) / 65535))
    assert read(tmp_path / f"a.{extension}", channels=3).shape == (3, 2, 2)
    assert read(tmp_path / f"a.{extension}", channels=4)[3].eq(1).all()
    resized = read(tmp_path / f"a.{extension}", size=1)
    torch.testing.assert_close(resized, image.mean().reshape(1, 1, 1))


def test_8_and_16_bits_stand_in_one_batch(tmp_path: Path) -> None:
    for name in ("ant", "bird"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for index in range(4):
        saved(tmp_path / "data/ant" / f"{index}.png", np.full((2, 2), 128, np.uint8))
        saved(tmp_path / "data/bird" / f"{index}.png", np.full((2, 2), 128 * 257, np.uint16))
    train = folder(str(tmp_path / "data"), validation=0.25, test=0.25).train
    image = train.__getitems__(range(len(train)))["image"]
    torch.testing.assert_close(image, torch.full_like(image, 128 / 255))


def test_floating_point_is_refused_outside_of_the_unit_range(tmp_path: Path) -> None:
    assert read(saved(tmp_path / "a.tif", np.full((2, 2), 0.25, np.float32))).eq(0.25).all()
    path = saved(tmp_path / "b.tif", np.full((2, 2), 7.0, np.float32))
    with pytest.raises(ValueError, match=r"b\.tif: .*values go from 7 to 7"):
        read(path)


def test_alpha_is_blended_with_the_background_or_stays_a_channel(tmp_path: Path) -> None:
    pixels = np.zeros((1, 2, 4), np.uint8)
    pixels[0, :, 0] = 255
    pixels[0, :, 3] = 255, 0
    path = saved(tmp_path / "a.png", pixels)
    assert read(path).permute(1, 2, 0).tolist() == [[[1, 0, 0], [1, 1, 1]]]
    assert read(path, background="#0000ff").permute(1, 2, 0)[0, 1].tolist() == [0, 0, 1]
    assert read(path, channels=4)[3].tolist() == [[1, 0]]
    grey = np.array([[[0, 0], [0, 255]]], np.uint8)
    assert read(saved(tmp_path / "b.png", grey)).tolist() == [[[1, 0]]]


def test_palettes_and_cmyk_are_colours(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.putdata([0, 1])
    picture.save(tmp_path / "opaque.png")
    assert read(tmp_path / "opaque.png")[:, 0, 1].tolist() == [1, 0, 0]
    picture.save(tmp_path / "p.png", transparency=b"\x00\xff")
    assert read(tmp_path / "p.png").permute(1, 2, 0).tolist() == [[[1, 1, 1], [1, 0, 0]]]
    Image.new("CMYK", (1, 1), (0, 255, 255, 0)).save(tmp_path / "c.tif")
    assert read(tmp_path / "c.tif")[:, 0, 0].tolist() == [1, 0, 0]


def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    picture = Image.new("L", (4, 2))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.jpg", exif=exif)
    assert read(tmp_path / "a.jpg").shape == (1, 4, 2)


def test_bad_options_are_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="channels: expected 1, 3 or 4, got 2"):
        read(path, channels=2)
    with pytest.raises(ValueError, match="background: expected the name of a colour"):
        read(path, background="blurple")


def classes(root: Path) -> None:
    for value, name in enumerate(("ant", "bird")):
        (root / name).mkdir(parents=True)
        for index in range(6):
            saved(root / name / f"{index}.png", np.full((4, 4), 10 * value + index, np.uint8))


def damaged(root: Path) -> list[Path]:
    """Return one file per kind of damage."""
    whole = saved(root / "ant" / "whole.jpg", np.random.rand(64, 64).astype(np.float32) * 0, "L")
    files = {
        "bird/empty.png": b"",
        "bird/text.jpg": b"no picture",
        "ant/half.jpg": whole.read_bytes()[: whole.stat().st_size // 2],
        "ant/half.png": (root / "ant/0.png").read_bytes()[:40],
    }
    for name, content in files.items():
        (root / name).write_bytes(content)
    return sorted(root / name for name in files)


def test_damaged_files_are_named_before_training(tmp_path: Path) -> None:
    classes(tmp_path / "data")
    damaged(tmp_path / "data")
    with pytest.raises(ValueError, match="cannot be read as a picture") as caught:
        folder(str(tmp_path / "data"))
    message = str(caught.value)
    assert "and 1 more" in message
    assert "data.broken=skip" in message


def test_damaged_files_can_be_left_out(tmp_path: Path) -> None:
    classes(tmp_path / "data")
    broken = damaged(tmp_path / "data")
    data = folder(str(tmp_path / "data"), broken="skip", size=4)
    assert sum(len(part) for part in (data.train, data.validation, data.test)) == 13
    assert data.notes[0].startswith(f"{len(broken)} broken pictures are left out: ")
    for part in (data.train, data.validation):
        for row in range(len(part)):
            part.__getitems__([row])


def test_what_pillow_raises_carries_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes(tmp_path / "data")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    with pytest.raises(ValueError, match=r"0\.png cannot be read as a picture: .*bomb"):
        folder(str(tmp_path / "data"))


def test_a_good_file_is_read_again_only_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes(tmp_path / "data")
    folder(str(tmp_path / "data"))
    seen: list[Path] = []
    original = picture_check._reason
    monkeypatch.setattr(
        picture_check, "_reason", lambda path: (seen.append(path), original(path))[1]
    )
    folder(str(tmp_path / "data"))
    assert seen == []
    changed = tmp_path / "data/ant/3.png"
    os.utime(changed, ns=(1, 1))
    folder(str(tmp_path / "data"))
    assert seen == [changed]
    cache = next((tmp_path / "cache/pictures").glob("*.json"))
    cache.write_text("{broken")
    folder(str(tmp_path / "data"))
    assert len(seen) == 13


@pytest.mark.parametrize("name", ["unlabelled", "unlabeled"])
def test_unlabelled_pictures_are_trained_on_and_never_judged(tmp_path: Path, name: str) -> None:
    classes(tmp_path / "data")
    (tmp_path / "data" / name / "more").mkdir(parents=True)
    for index in range(5):
        saved(tmp_path / "data" / name / "more" / f"{index}.png", np.zeros((4, 4), np.uint8))
    data = folder(str(tmp_path / "data"), validation=0.25, test=0.25)
    assert data.classes == ("ant", "bird")
    assert int((data.train.label == -100).sum()) == 5
    for part in (data.validation, data.test):
        assert (part.label != -100).all()
    assert len(data.train) + len(data.validation) + len(data.test) == 17


def test_unlabelled_pictures_to_judge_are_refused(tmp_path: Path) -> None:
    classes(tmp_path / "data/train")
    classes(tmp_path / "data/test")
    (tmp_path / "data/test/unlabelled").mkdir()
    with pytest.raises(ValueError, match="without a label cannot be evaluated"):
        folder(str(tmp_path / "data"))


@pytest.mark.parametrize("size", [0, [8, 0], (-1, 8)])
def test_a_size_without_pixels_is_an_error(size: Any) -> None:
    with pytest.raises(ValueError, match="size: Expected at least 1 pixel, got"):
        pictures(Files(()), 1, size)
