"""Data in the format of YOLO: boxes, polygons, splits, sizes and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from instil.data.boxed_pictures import BoxedPictures
from instil.data.sources.yolo import yolo
from instil.data.yolo_files import label_file

LINES = ("", "1 0.5 0.5 0.2 0.4\n", "0 0.1 0.2 0.1 0.2\n\n1 0.2 0.1 0.6 0.1 0.4 0.9\n")
NAMES = {0: "cat", 1: "dog"}


def write(folder: Path, part: str = "train", lines: tuple[str, ...] = LINES) -> None:
    """Pictures of 20 x 10 pixels with the labels of ``lines``."""
    for kind in ("images", "labels"):
        (folder / kind / part).mkdir(parents=True, exist_ok=True)
    for row, text in enumerate(lines):
        Image.new("RGB", (20, 10), (row, 0, 0)).save(folder / "images" / part / f"{row}.png")
        (folder / "labels" / part / f"{row}.txt").write_text(text)


def describe(folder: Path, **entries: Any) -> Path:
    file = folder / "data.yaml"
    file.write_text(yaml.safe_dump({"train": "images/train", "names": NAMES} | entries))
    return file


def test_boxes_and_polygons_are_boxes_in_pixels(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, "val")
    describe(tmp_path, val="images/val", test="images/val")
    data = yolo("data.yaml", base=tmp_path)
    assert isinstance(data.train, BoxedPictures)
    assert (data.kind, data.classes) == ("boxes", ("cat", "dog"))
    assert len(data.validation) == len(data.test) == 3
    batch = data.train.__getitems__([0, 1, 2])
    assert batch["image"].shape == (3, 3, 10, 20)
    assert batch["label"].tolist() == [[-100, -100], [1, -100], [0, 1]]
    assert batch["box"][1, 0].tolist() == pytest.approx([8, 3, 12, 7])
    assert batch["box"][2, 0].tolist() == pytest.approx([1, 1, 3, 3])
    assert batch["box"][2, 1].tolist() == pytest.approx([4, 1, 12, 9])
    resized = yolo("data.yaml", size=40, classes=["dog"], base=tmp_path).train.__getitems__([1, 2])
    assert resized["box"][0, 0].tolist() == pytest.approx([16, 12, 24, 28])
    assert resized["label"].tolist() == [[0], [0]]


def test_a_picture_on_its_side_has_boxes_in_its_upright_size(tmp_path: Path) -> None:
    write(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    for row in range(3):
        (tmp_path / "images" / "train" / f"{row}.png").unlink()
        Image.new("RGB", (20, 10)).save(tmp_path / "images" / "train" / f"{row}.jpg", exif=exif)
    describe(tmp_path, val="images/train", test="images/train")
    batch = yolo("data.yaml", base=tmp_path).train.__getitems__([1])
    assert batch["image"].shape == (1, 3, 20, 10)
    assert batch["box"][0, 0].tolist() == pytest.approx([4, 6, 6, 14])


def test_lists_of_pictures_and_a_folder_of_the_data(tmp_path: Path) -> None:
    write(tmp_path / "animals")
    write(tmp_path / "animals", "more")
    listing = tmp_path / "animals" / "train.txt"
    listing.write_text("images/train/1.png\nimages/train/2.png\n")
    (tmp_path / "animals" / "labels" / "more" / "0.txt").unlink()
    parts = {"train": ["train.txt", "images/more"], "names": ["cat", "dog"]}
    describe(tmp_path, path="animals", **parts)
    data = yolo("data.yaml", validation=0.4, test=0.2, base=tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (2, 2, 1)
    assert data.notes == ("1 pictures without a file of labels: they have no objects",)


def test_the_last_folder_of_images_is_replaced() -> None:
    path = label_file(Path("images/set/images/train/a.b.jpg"))
    assert path == Path("images/set/labels/train/a.b.txt")
    assert label_file(Path("set/a.jpg")) == Path("set/a.txt")


def test_invisible_boxes_and_broken_pictures_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, lines=(*LINES, "0 0.5 0.5 0 0.4\n", "0 0.5 0.5 0.1 0.1\n"))
    (tmp_path / "images" / "train" / "4.png").write_text("no picture")
    describe(tmp_path, val="images/train", test="images/train")
    with pytest.raises(ValueError, match=r"4\.png cannot be read as a picture"):
        yolo("data.yaml", base=tmp_path)
    data = yolo("data.yaml", broken="skip", base=tmp_path)
    assert len(data.train) == 4
    assert "left out: 3 boxes without an area inside of their picture" in data.notes
    assert any("4.png" in note for note in data.notes)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 0.5 0.5 0.2", "line 1: Expected a class and centre.*got 4 numbers"),
        ("2 0.5 0.5 0.2 0.2", "line 1: Expected a class from 0 to 1, got 2"),
        ("0.5 0.5 0.5 0.2 0.2", "line 1: Expected a class from 0 to 1, got 0.5"),
        ("1 8 3 4 4", "line 1: Expected fractions of the picture, 0 to 1, got"),
        ("dog 0.5 0.5 0.2 0.2", "line 1: Expected numbers, got dog"),
    ],
)
def test_lines_of_another_form(tmp_path: Path, line: str, message: str) -> None:
    write(tmp_path, lines=(line,))
    describe(tmp_path)
    with pytest.raises(ValueError, match=r"0\.txt, " + message):
        yolo("data.yaml", base=tmp_path)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"names": None}, "Expected train, val and names, as in YOLO, got names, train"),
        ({"names": ["cat", "cat"]}, "names: two are equal"),
        ({"names": {1: "cat", 2: "dog"}}, "names: Expected the indices 0 to 1, got 1, 2"),
        ({"train": "images/trian"}, "train: there is no .*trian.* Set path to the folder"),
        ({"val": "labels"}, "val: labels has no pictures"),
        ({"train": "no_labels"}, "train: no picture has labels. Expected a file such as"),
    ],
)
def test_descriptions_of_another_form(
    tmp_path: Path, entries: dict[str, Any], message: str
) -> None:
    write(tmp_path)
    (tmp_path / "no_labels").mkdir()
    Image.new("RGB", (20, 10)).save(tmp_path / "no_labels" / "0.png")
    describe(tmp_path, **entries)
    with pytest.raises(ValueError, match=message):
        yolo("data.yaml", base=tmp_path)


def test_unreadable_descriptions(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("train: [")
    with pytest.raises(ValueError, match=r"file: .*data\.yaml cannot be read as YAML"):
        yolo("data.yaml", base=tmp_path)
    with pytest.raises(ValueError, match=r"no 'dta\.yaml' in .* Did you mean data\.yaml"):
        yolo("dta.yaml", base=tmp_path)
