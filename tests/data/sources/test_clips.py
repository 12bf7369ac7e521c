"""Clips in folders: animated pictures, folders of frames, errors."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from instil.data.sources.clips import clips

pytest.importorskip("PIL")
from PIL import Image


def frames(num_frames: int, level: int) -> list[Image.Image]:
    """Grey frames that become brighter by one step each."""
    return [Image.new("L", (12, 10), level + 8 * index) for index in range(num_frames)]


def write(folder: Path, num_frames: int = 6) -> Path:
    for name, level in (("dark", 0), ("light", 150)):
        (folder / name).mkdir(parents=True)
        for clip in range(4):
            pictures = frames(num_frames, level)
            if clip % 2:
                (folder / name / f"{clip}").mkdir()
                for index, picture in enumerate(pictures):
                    picture.save(folder / name / f"{clip}" / f"{index:02d}.png")
            else:
                file = folder / name / f"{clip}.gif"
                pictures[0].save(file, save_all=True, append_images=pictures[1:])
    return folder


def test_files_and_folders_of_frames_are_clips(tmp_path: Path) -> None:
    data = clips(str(write(tmp_path / "data")), frames=3, size=[5, 6], channels=1)
    parts = (data.train, data.validation, data.test)
    assert sum(len(part) for part in parts) == 8
    assert data.classes == ("dark", "light")
    assert data.train.facts == {"classes": 2, "channels": 1, "frames": 3, "size": (5, 6)}
    for part in parts:
        batch = part.__getitems__(range(len(part)))
        assert batch["video"].shape[1:] == (1, 3, 5, 6)
        # The middle of three equal parts of six frames: frames 1, 3 and 5.
        steps = torch.tensor([8.0, 24.0, 40.0]) / 255
        expected = steps + 150 / 255 * batch["label"][:, None]
        torch.testing.assert_close(batch["video"].mean((1, 3, 4)), expected)


def test_colour_and_folders_of_splits(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        write(tmp_path / "data" / part)
    data = clips("data", frames=2, size=8, base=tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (8, 8, 8)
    assert data.test.__getitems__([0])["video"].shape == (1, 3, 2, 8, 8)


def test_a_class_that_only_the_test_clips_have_is_an_error(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / "data" / split)
    shutil.copytree(tmp_path / "data/test/dark", tmp_path / "data/test/drak")
    with pytest.raises(ValueError, match=r"train has no class 'drak'.*Did you mean dark"):
        clips(str(tmp_path / "data"), frames=3, size=8)


def test_wrong_clips_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "data", num_frames=4)
    with pytest.raises(ValueError, match=r"too few frames\. Expected at least frames: 5, got 4"):
        clips(str(root), frames=5)
    (root / "dark" / "broken.gif").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"broken\.gif: the clip cannot be read"):
        clips(str(root), frames=2)
    (tmp_path / "empty" / "class").mkdir(parents=True)
    with pytest.raises(ValueError, match="has no clips"):
        clips(str(tmp_path / "empty"))


def test_video_files_are_read_with_av(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for name in ("a/0", "a/1", "b/0", "b/1", "b/2", "a/2"):
        with av.open(str(tmp_path / f"{name}.avi"), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
            for index in range(6):
                array = np.full((32, 32, 3), 40 * index, np.uint8)
                for packet in stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")):
                    container.mux(packet)
            for packet in stream.encode():
                container.mux(packet)
    data = clips(str(tmp_path), frames=3, size=8, channels=1, validation=0.3, test=0.3)
    video = data.train.__getitems__([0])["video"]
    expected = torch.tensor([40.0, 120.0, 200.0]) / 255
    torch.testing.assert_close(video.mean((0, 1, 3, 4)), expected, atol=0.03, rtol=0)


def test_frames_of_a_folder_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for kind in ("up", "down"):
        for clip in range(6):
            folder = tmp_path / kind / f"clip{clip}"
            folder.mkdir(parents=True)
            for index in range(12):
                level = 20 * (index if kind == "up" else 11 - index)
                Image.new("L", (4, 4), level).save(folder / f"{index}.png")
            # macOS writes such files next to those that it copies.
            (folder / "._0.png").write_bytes(b"attributes")
    data = clips(str(tmp_path), frames=12, size=4, channels=1, base=tmp_path)
    batch = data.train.__getitems__(range(len(data.train)))
    levels = batch["video"][:, 0, :, 0, 0].mul(255).round().long()
    for label, row in zip(batch["label"].tolist(), levels.tolist(), strict=True):
        assert row == sorted(row, reverse=data.classes[label] == "down")
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "up" / "clip0" / "3.png")
    with pytest.raises(ValueError, match=r"clip0.*3\.png has 16 or more bits per pixel"):
        clips(str(tmp_path), frames=12, size=4, channels=1, base=tmp_path)
