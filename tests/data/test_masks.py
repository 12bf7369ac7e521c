"""Masks and real targets, from folders and archives."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from instil.data.sources.folder import folder
from instil.data.sources.npz import npz


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))


def masked(root: Path, count: int = 8, largest: int = 2, void: int = 255) -> None:
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for index in range(count):
        mask = np.full((4, 6), index % (largest + 1), np.uint8)
        mask[0, 0] = void
        Image.fromarray(np.full((4, 6, 3), index, np.uint8)).save(root / f"images/{index}.jpg")
        if index < count - 1:
            Image.fromarray(mask).save(root / f"masks/{index}.png")


def test_a_folder_of_masks(tmp_path: Path) -> None:
    masked(tmp_path / "data/train")
    masked(tmp_path / "data/test", 3)
    splits = folder(
        str(tmp_path / "data"), task_name="segmentation", validation=0.3, classes=list("abc")
    )
    assert splits.classes == ("a", "b", "c")
    assert splits.kind == "single"
    batch = splits.test.__getitems__([1, 2])
    assert batch["image"].shape == (2, 3, 4, 6)
    assert batch["label"].shape == (2, 4, 6)
    assert batch["label"][0, 1].eq(1).all()
    assert batch["label"][0, 0, 0] == -100
    assert not batch["valid"][0, 0, 0]
    # without a mask: no label, but distilled
    assert batch["label"][1].eq(-100).all()
    assert batch["valid"][1].all()
    assert splits.train.facts == {"classes": 3, "channels": 3, "size": (4, 6)}
    assert splits.validation.label.ne(-100).flatten(1).any(1).all()


def test_0_and_255_are_two_classes_and_masks_are_resized(tmp_path: Path) -> None:
    masked(tmp_path / "data", largest=0)
    splits = folder(str(tmp_path / "data"), task_name="segmentation", size=[8, 12])
    assert splits.classes == ("0", "1")
    batch = splits.train.__getitems__([0])
    assert batch["valid"].all()
    assert batch["label"].shape == (1, 8, 12)
    assert batch["label"].unique().tolist() == [0, 1]


def test_bad_folders_of_masks(tmp_path: Path) -> None:
    masked(tmp_path / "data")
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "data/masks/other.png")
    with pytest.raises(ValueError, match=r"other\.png: no picture of this name"):
        folder(str(tmp_path / "data"), task_name="segmentation")
    (tmp_path / "data/masks/other.png").unlink()
    second = tmp_path / "data/images/0.bmp"
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(second)
    with pytest.raises(ValueError, match=r"0\.jpg: a second picture of this name, next to 0\.bmp"):
        folder(str(tmp_path / "data"), task_name="segmentation")
    second.unlink()
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "data/masks/0.png")
    with pytest.raises(ValueError, match=r"0\.png: a mask of mode RGB"):
        folder(str(tmp_path / "data"), task_name="segmentation")
    for mask in (tmp_path / "data/masks").iterdir():
        Image.fromarray(np.full((4, 6), 255, np.uint8)).save(mask)
    with pytest.raises(ValueError, match="no pixel of the masks has a class: all have 255"):
        folder(str(tmp_path / "data"), task_name="segmentation")
    with pytest.raises(ValueError, match="no folder 'images'"):
        folder(str(tmp_path), task_name="segmentation")


def test_a_stray_value_and_a_mask_of_another_size_are_named(tmp_path: Path) -> None:
    masked(tmp_path)
    read = partial(folder, str(tmp_path), task_name="segmentation", size=4)
    assert read().notes == ()
    mask = np.zeros((4, 6), np.uint8)
    mask[1, 0] = 250
    Image.fromarray(mask).save(tmp_path / "masks/5.png")
    (note,) = read().notes
    assert note.startswith("masks: no pixel has 247 of the 251 classes. The largest value, 250, is")
    assert note.endswith("5.png")
    with pytest.raises(ValueError, match=r"5\.png: 1 pixels have no class, .* value 250.* to 2,"):
        read(classes=list("abc"))
    Image.fromarray(mask[:2, :3]).save(tmp_path / "masks/5.png")
    with pytest.raises(ValueError, match=r"5\.png: 3 x 2 pixels\. Expected 6 x 4, as in .*5\.jpg"):
        read()


def test_a_mask_in_the_stored_orientation_of_its_picture_is_an_error(tmp_path: Path) -> None:
    masked(tmp_path / "data")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = tmp_path / "data/images/2.jpg"
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(picture, exif=exif)
    # The picture is 4 x 6 upright, and resizing would hide that its mask is not turned.
    with pytest.raises(ValueError, match=r"2\.png: 6 x 4 pixels\. Expected 4 x 6, as in .*2\.jpg"):
        folder(str(tmp_path / "data"), task_name="segmentation", size=8)
    Image.fromarray(np.zeros((6, 4), np.uint8)).save(tmp_path / "data/masks/2.png")
    assert folder(str(tmp_path / "data"), task_name="segmentation", size=8).classes


def archive(path: Path, label: Any, **others: Any) -> str:
    image = np.random.default_rng(0).integers(0, 255, (len(label), 4, 4), np.uint8)
    np.savez(path, image=image, label=label, **others)
    return str(path)


def test_an_archive_of_masks(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).integers(0, 3, (20, 4, 4))
    mask[0, 0, 0] = 255
    splits = npz(archive(tmp_path / "a.npz", mask), task_name="segmentation")
    assert splits.classes == ("0", "1", "2")
    assert splits.train.__getitems__([0])["label"].shape == (1, 4, 4)
    with pytest.raises(ValueError, match=r"label: masks of shape .* need task: segmentation"):
        npz(str(tmp_path / "a.npz"))
    with pytest.raises(ValueError, match=r"masks have the shape \(20, 5, 5\)"):
        npz(archive(tmp_path / "b.npz", np.zeros((20, 5, 5), int)), task_name="segmentation")


@pytest.mark.parametrize("shape", [(20,), (20, 2)])
def test_an_archive_of_real_targets(tmp_path: Path, shape: tuple[int, ...]) -> None:
    target = np.random.default_rng(0).normal(size=shape) * 5
    target.reshape(20, -1)[0] = np.nan
    splits = npz(archive(tmp_path / "a.npz", target), task_name="regression")
    assert splits.kind == "real"
    assert splits.train.label.shape[1] == len(splits.classes)
    assert splits.train.__getitems__([0])["image"].max() <= 1
    assert sum((part.label == -100).any().item() for part in (splits.train, splits.test)) == 1
    assert (splits.train.label == -100).any()
    with pytest.raises(ValueError, match=r"real numbers are not classes\. Use task: regression"):
        npz(str(tmp_path / "a.npz"))


def test_class_indices_are_no_targets(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", np.arange(20) % 3)
    with pytest.raises(ValueError, match=r"regression needs floating-point targets .*got int64"):
        npz(path, task_name="regression")


@pytest.mark.parametrize("kind", [np.str_, np.bytes_])
def test_class_names_are_labels(tmp_path: Path, kind: type) -> None:
    names = np.array(["dog", "cat", ""] * 10, kind)
    splits = npz(archive(tmp_path / "a.npz", names))
    assert splits.classes == ("cat", "dog")
    labels = torch.cat([splits.train.label, splits.validation.label, splits.test.label])
    assert labels.bincount(minlength=2).tolist() == [10, 10] if (labels >= 0).all() else True
    assert int((labels == -100).sum()) == 10
    ordered = npz(str(tmp_path / "a.npz"), classes=["dog", "cat"])
    assert ordered.classes == ("dog", "cat")
    with pytest.raises(ValueError, match=r"unknown class 'dog'\. Did you mean dogs"):
        npz(str(tmp_path / "a.npz"), classes=["dogs", "cat"])


def test_16_bit_arrays_are_scaled(tmp_path: Path) -> None:
    image = np.full((20, 2, 2), 65535, np.uint16)
    np.savez(tmp_path / "a.npz", image=image, label=np.arange(20) % 2)
    assert npz(str(tmp_path / "a.npz")).train.__getitems__([0])["image"].eq(1).all()
