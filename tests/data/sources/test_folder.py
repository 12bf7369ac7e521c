from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from instil.data.sources.folder import folder


def paint(path: Path, value: int = 0, mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((*size[::-1], 3), value, np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def classes(root: Path, count: int = 4, **options) -> None:
    for index, name in enumerate(("bird", "ant")):
        for picture in range(count):
            paint(root / name / f"{picture}.png", index * 100 + picture, **options)


def test_split_folders(tmp_path):
    for part, count in (("train", 4), ("val", 2), ("test", 3)):
        classes(tmp_path / "data" / part, count)
    splits = folder("data", base=tmp_path)
    assert splits.classes == ("ant", "bird")
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (8, 4, 6)
    batch = splits.test.__getitems__([0, 5])
    assert batch["label"].tolist() == [0, 1]
    assert batch["image"].shape == (2, 3, 4, 6)
    torch.testing.assert_close(batch["image"][:, 0, 0, 0], torch.tensor([100.0, 2.0]) / 255)


def test_one_folder_is_divided(tmp_path):
    classes(tmp_path, 10)
    splits = folder(str(tmp_path), validation=0.2, test=0.5)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (8, 2, 10)


def test_what_is_no_picture_is_ignored(tmp_path):
    classes(tmp_path, 10)
    (tmp_path / "ant" / "notes.txt").write_text("x")
    (tmp_path / "ant" / ".hidden.png").write_text("x")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "README.md").write_text("x")
    splits = folder(str(tmp_path))
    assert sum(len(part) for part in (splits.train, splits.validation, splits.test)) == 20


def test_grey_stays_grey_and_size_resizes(tmp_path):
    classes(tmp_path, 10, mode="L")
    paint(tmp_path / "ant" / "odd.png", 7, "RGB", (9, 9))
    splits = folder(str(tmp_path), size=[5, 3], validation=0.3)
    assert splits.train.shape == (1, 5, 3)
    assert splits.train.__getitems__(range(len(splits.train)))["image"].shape[1:] == (1, 5, 3)
    assert folder(str(tmp_path), size=5, channels=3).train.shape == (3, 5, 5)


def test_palette_with_transparency_is_read(tmp_path):
    classes(tmp_path, 4)
    picture = Image.new("P", (6, 4))
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.save(tmp_path / "ant" / "p.png", transparency=b"\x00\xff")
    splits = folder(str(tmp_path), test=0.3, validation=0.3)
    for part in (splits.train, splits.validation, splits.test):
        assert part.__getitems__(range(len(part)))["image"].shape[1:] == (3, 4, 6)


def test_images_of_different_sizes_need_the_option_size(tmp_path):
    for part in ("train", "test"):
        classes(tmp_path / part, 4)
    paint(tmp_path / "test" / "ant" / "big.png", 0, "RGB", (9, 9))
    with pytest.raises(ValueError, match=r"^size: .*0.png has 6 x 4 and .*big.png has 9 x 9 pix"):
        folder(str(tmp_path))
    images = folder(str(tmp_path), size=5).test.__getitems__(range(9))["image"]
    assert images.shape == (9, 3, 5, 5)


def test_pictures_that_become_equal_by_their_orientation(tmp_path):
    classes(tmp_path / "data", 8)
    turned = Image.new("RGB", (4, 6))
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / "data" / "ant" / "turned.jpg", exif=turned.getexif())
    train = folder("data", base=tmp_path, size=None).train
    assert train.__getitems__(range(len(train)))["image"].shape[1:] == (3, 4, 6)


def test_bad_folders(tmp_path):
    with pytest.raises(ValueError, match=f"no 'dat' in {tmp_path}"):
        folder("dat", base=tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty has no folders. Expected one folder per class"):
        folder("empty", base=tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file, not a folder"):
        folder("file", base=tmp_path)
    classes(tmp_path / "data", 4)
    (tmp_path / "data" / "cow").mkdir()
    with pytest.raises(ValueError, match=r"class folder .*cow has no pictures"):
        folder("data", base=tmp_path)


def test_a_class_that_train_lacks(tmp_path):
    classes(tmp_path / "train", 4)
    paint(tmp_path / "test" / "brd" / "0.png")
    with pytest.raises(ValueError, match=r"^path: train has no class 'brd'.*Did you mean bird"):
        folder(str(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 2}, "channels: expected 1, 3 or 4, got 2"),
        ({"size": [1, 2, 3]}, "one number or"),
    ],
)
def test_bad_options(tmp_path, options, message):
    classes(tmp_path, 4)
    with pytest.raises(ValueError, match=message):
        folder(str(tmp_path), **options)


def test_a_folder_has_no_boxes(tmp_path):
    paint(tmp_path / "data" / "images" / "0.png")
    (tmp_path / "data" / "labels").mkdir()
    with pytest.raises(ValueError, match=r"^path: .* no boxes .*data.name: yolo.*data.name: coco"):
        folder("data", base=tmp_path, task_name="detection")
