"""Depth maps of a folder: scales, missing depths, sizes and errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from instil.data.sources.folder import folder
from instil.data.splits import Splits


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))


def write(root: Path, count: int = 8) -> None:
    """Picture ``index`` has the depth ``index + 1`` metres, none in the first row, in KITTI's PNG.

    The second depth map is an array in metres times 256, and the last picture has none.
    """
    for name in ("images", "depth"):
        (root / name).mkdir(parents=True)
    for index in range(count):
        Image.fromarray(np.full((4, 6, 3), index, np.uint8)).save(root / f"images/{index}.jpg")
        values = np.full((4, 6), 256 * (index + 1), np.uint16)
        values[0] = 0
        if index == 1:
            array = values.astype(np.float64)
            array[0] = np.nan
            np.save(root / "depth/1.npy", array)
        elif index < count - 1:
            Image.fromarray(values).save(root / f"depth/{index}.png")


def read(root: Path, **options: object) -> Splits:
    return folder(str(root), task_name="depth", **options)  # type: ignore[arg-type]


def test_a_folder_of_depth_maps(tmp_path: Path) -> None:
    write(tmp_path / "data/train")
    write(tmp_path / "data/val", 4)
    data = read(tmp_path / "data", depth_scale=256, test=0.3)
    assert (data.train.kind, data.train.classes) == ("real", ("depth",))
    assert data.train.facts == {"classes": 1, "channels": 3, "size": (4, 6)}
    batch = data.validation.__getitems__(range(4))
    assert batch["image"].shape == (4, 3, 4, 6)
    assert batch["valid"].all()
    assert (batch["label"][:, 0] == -100).all()
    for index in range(3):
        assert (batch["label"][index, 1:] == index + 1).all()
    assert (batch["label"][3] == -100).all()
    # Pictures without a depth map are not held out.
    assert data.test.has_label.all()


def test_unknown_depths_are_not_mixed_with_known_ones(tmp_path: Path) -> None:
    write(tmp_path / "data")
    data = read(tmp_path / "data", size=[7, 9])
    values = data.train.__getitems__(range(len(data.train)))["label"].unique().tolist()
    assert values == [-100.0, *(256.0 * (row + 1) for row in data.train.origin.tolist()[:-1])]


def test_wrong_folders_of_depth_maps_raise(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write(root)
    with pytest.raises(ValueError, match=r"depth_scale: 0 is not above 0"):
        read(root, depth_scale=0)
    with pytest.raises(ValueError, match=r"depth_scale: only depth maps have a scale"):
        folder(str(root), task_name="segmentation", depth_scale=256)
    with pytest.raises(ValueError, match=r"no folder 'masks'.*Expected one of depth"):
        folder(str(root), task_name="segmentation")
    depth = np.ones((4, 6), np.uint16)
    Image.fromarray(depth).save(root / "depth/12.png")
    with pytest.raises(
        ValueError, match=r"12\.png: no picture of this name.* Did you mean 2 or 1\?"
    ):
        read(root)
    (root / "depth/12.png").unlink()
    Image.fromarray(depth).save(root / "depth/1.png")
    with pytest.raises(ValueError, match=r"1\.png: a second depth map of one picture, next to 1"):
        read(root)
    (root / "depth/1.png").unlink()
    for array, message in (
        (np.ones((4, 6, 3)), r"1\.npy: float64 of shape \(4, 6, 3\)\. Expected numbers"),
        (np.full((4, 6), np.inf), r"1\.npy: 24 depths are infinite"),
        (np.ones((5, 6)), r"1\.npy: 6 x 5 pixels\. Expected 6 x 4, as in .*1\.jpg"),
    ):
        np.save(root / "depth/1.npy", array)
        with pytest.raises(ValueError, match=message):
            read(root)
    (root / "depth/1.npy").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"1\.npy cannot be read"):
        read(root)
    assert len(read(root, broken="skip").notes) == 1
    (root / "depth/1.npy").unlink()
    Image.fromarray(np.ones((4, 6, 3), np.uint8)).save(root / "depth/1.png")
    with pytest.raises(ValueError, match=r"1\.png: a depth map of mode RGB\. Expected one channel"):
        read(root)
    for file in (root / "depth").iterdir():
        Image.fromarray(0 * depth).save(file)
    with pytest.raises(ValueError, match=r"depth: no depth is above 0"):
        read(root)
    for file in (root / "depth").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r"images: no picture has a depth map"):
        read(root)


def test_arrays_and_pictures_of_floating_point(tmp_path: Path) -> None:
    write(tmp_path / "train")
    write(tmp_path / "val", 3)
    values = torch.linspace(0.5, 3, 24).view(4, 6).numpy()
    (tmp_path / "val/depth/0.png").unlink()
    Image.fromarray(values).save(tmp_path / "val/depth/0.tiff")
    np.save(tmp_path / "val/depth/1.npy", values.astype(np.float16))
    depth = read(tmp_path, depth_scale=0.5).validation.__getitems__([0, 1])["label"].numpy()
    np.testing.assert_allclose(depth[0], 2 * values)
    np.testing.assert_allclose(depth[1], 2 * values, rtol=1e-3)
