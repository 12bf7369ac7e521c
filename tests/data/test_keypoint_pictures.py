"""Keypoints of COCO: crops, positions, areas, files of folders, and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from instil.data.cropped_pictures import padded_crop
from instil.data.sources.coco import coco
from instil.data.sources.folder import folder
from instil.data.splits import Splits

NAMES = ["nose", "hand", "foot"]
PERSON = {"id": 1, "name": "person", "keypoints": NAMES, "skeleton": [[1, 2]]}
BALL = {"id": 2, "name": "ball"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))


def person(picture: int, **changes: Any) -> dict[str, Any]:
    """Person with the nose in the pixel (12, 5), an occluded hand in (15, 9), and no foot."""
    keypoints = [12, 5, 2, 15, 9, 1, 0, 0, 0]
    annotation = {"image_id": picture, "category_id": 1, "bbox": [10, 4, 8, 8], "area": 32.0}
    return annotation | {"keypoints": keypoints, "num_keypoints": 2, "iscrowd": 0} | changes


def write(
    root: Path,
    part: str = "train2017",
    annotations: list[dict[str, Any]] | None = None,
    count: int = 6,
    **changes: Any,
) -> Path:
    """Pictures of 30 x 20 pixels, black but for the nose; each has one person."""
    (root / part).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    for index in range(count):
        pixels = np.zeros((20, 30, 3), np.uint8)
        pixels[5, 12] = 255
        Image.fromarray(pixels).save(root / part / f"{index}.png")
    content = {
        "images": [
            {"id": index, "file_name": f"{index}.png", "width": 30, "height": 20}
            for index in range(count)
        ],
        "annotations": annotations or [person(index) for index in range(count)],
        "categories": [PERSON, BALL],
    }
    path = root / "annotations" / f"person_keypoints_{part}.json"
    path.write_text(json.dumps(content | changes))
    return path


def read(root: Path, **options: Any) -> Splits:
    return folder(str(root), task_name="pose", **{"size": [16, 8]} | options)


def test_an_object_is_cut_out_with_its_keypoints(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, "val2017", [person(0), person(0, bbox=[10, 4, 4, 12]), person(1)], 2)
    data = read(tmp_path, padding=1.0, test=0.34)
    assert (data.train.kind, data.train.classes) == ("real", tuple(NAMES))
    assert data.train.facts == {"classes": 3, "channels": 3, "size": (16, 8)}
    assert (len(data.train), len(data.validation), len(data.test)) == (4, 3, 2)
    batch = data.validation.__getitems__([0, 1])
    assert batch["image"].shape == (2, 3, 16, 8)
    # The box of 8 x 8 pixels grows to 8 x 16 around its centre; the image has one pixel for each.
    assert batch["crop"].tolist() == [[10, 0, 18, 16], [9, 4, 15, 16]]
    assert batch["picture"].tolist() == [0, 0]
    assert data.validation.__getitems__([2])["picture"].tolist() == [1]
    expected = torch.tensor([[2.5, 5.5], [5.5, 9.5], [-100.0, -100.0]])
    torch.testing.assert_close(batch["label"][0], expected)
    assert batch["image"][0, 0].nonzero().tolist() == [[5, 2]]
    # 6 x 12 pixels of the second part become 8 x 16.
    scale = 8 / 6
    expected = torch.tensor([[3.5 * scale, 1.5 * scale], [6.5 * scale, 5.5 * scale]])
    torch.testing.assert_close(batch["label"][1, :2], expected)
    torch.testing.assert_close(batch["area"], torch.tensor([32.0, 32 * scale**2]))


def test_parts_beyond_the_border_are_black(tmp_path: Path) -> None:
    write(tmp_path, annotations=[person(index, bbox=[10, 4, 5, 3]) for index in range(6)])
    batch = read(tmp_path, size=40, padding=6.0).train.__getitems__([0])
    # A square of 30 pixels around (12.5, 5.5) begins 2.5 pixels left of the picture.
    assert batch["crop"].tolist() == [[-2.5, -9.5, 27.5, 20.5]]
    torch.testing.assert_close(batch["label"][0, 0], torch.tensor([15 / 30 * 40, 15 / 30 * 40]))
    weight = batch["image"][0, 0] / batch["image"][0, 0].sum()
    centres = torch.arange(40) + 0.5
    assert float((weight.sum(0) * centres).sum()) == pytest.approx(20, abs=0.1)
    assert float((weight.sum(1) * centres).sum()) == pytest.approx(20, abs=0.1)


def test_default_padding_and_other_forms_of_pictures(tmp_path: Path) -> None:
    path = write(
        tmp_path, images=[{"id": index, "file_name": f"{index}.png"} for index in range(6)]
    )
    assert padded_crop((10, 4, 18, 12), (16, 8), 1.25) == (9, -2, 19, 18)
    for index in range(6):
        values = np.zeros((20, 30), np.uint16)
        values[5, 12] = 65535
        Image.fromarray(values).save(tmp_path / "train2017" / f"{index}.png")
    options = {"folder": "train2017", "classes": ["person"], "task_name": "pose"}
    data = coco(str(path.relative_to(tmp_path)), size=[20, 10], base=tmp_path, **options)
    batch = data.train.__getitems__([0])
    assert batch["crop"].tolist() == [[9, -2, 19, 18]]
    assert batch["image"].shape == (1, 1, 20, 10)
    assert batch["image"][0, 0].nonzero().tolist() == [[7, 3]]


def test_objects_that_do_not_count_are_left_out(tmp_path: Path) -> None:
    ball = {"image_id": 0, "category_id": 2, "bbox": [0, 0, 5, 5]}
    hidden = person(1, keypoints=[0] * 9, num_keypoints=0)
    rows = [person(index, area=None) for index in range(5)]
    for row in rows:
        del row["area"]
    write(tmp_path, annotations=[*rows, hidden, ball, person(2, iscrowd=1)])
    data = read(tmp_path)
    assert len(data.train) + len(data.validation) + len(data.test) == 5
    assert data.notes == ("1 objects without a labelled keypoint are left out",)
    assert "area" not in data.train.__getitems__([0])


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"size": None}, r"size: the objects differ in size.* such as \[256, 192\]"),
        ({}, {"classes": ["person"]}, "classes: class names come from the folders"),
        (
            {"annotations": [person(0), person(1, keypoints=[1, 2, 2])]},
            {},
            r"annotations\[1\]\.keypoints: Expected 9 numbers.* 3 keypoints \(nose, .*, got 3",
        ),
        (
            {"annotations": [person(0, keypoints=[0] * 9)]},
            {},
            "none of the 1 annotations has a labelled keypoint",
        ),
        ({"annotations": [person(7)]}, {}, r"annotations\[0\]\.image_id: unknown id 7"),
        ({"categories": [BALL]}, {}, "ball without the names of keypoints"),
        (
            {"categories": [PERSON, BALL | {"keypoints": ["seam"]}]},
            {},
            "person and ball have different keypoints",
        ),
        ({"images": [{"id": 0, "file_name": "00.png"}]}, {}, "no picture '00.png' .* Did you mean"),
    ],
)
def test_wrong_annotations_raise(
    changes: dict[str, Any], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    one = {"annotations": [person(0)]} if "images" in changes else {}
    write(tmp_path, **one | changes)
    with pytest.raises(ValueError, match=message):
        read(tmp_path, **options)


def test_wrong_folders_raise(tmp_path: Path) -> None:
    path = write(tmp_path)
    with pytest.raises(ValueError, match=r"classes: .* has no category 'persom'.*Did you mean per"):
        coco(str(path), str(path.parent), classes=["persom"], task_name="pose", size=8)
    with pytest.raises(ValueError, match="padding: only keypoints need it"):
        coco(str(path), padding=1.0)
    with pytest.raises(ValueError, match="padding: only keypoints need it"):
        folder(str(tmp_path), task_name="depth", padding=1.0)
    for file in (tmp_path / "train2017").iterdir():
        Image.new("RGB", (20, 30)).save(file)
    data = read(tmp_path)
    with pytest.raises(ValueError, match=r"0\.png: 20 x 30 pixels\. Expected 30 x 20, as in its"):
        data.train.__getitems__([0])
    other = json.loads(path.read_text())
    other["categories"] = [PERSON | {"keypoints": ["nose", "foot", "hand"]}]
    (path.parent / "person_keypoints_val2017.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match=r"val2017\.json: categories: the keypoints differ from"):
        read(tmp_path)
    path.with_name("person_keypoints_train2014.json").write_text("{}")
    with pytest.raises(ValueError, match=r"a second file of the split train, next to person_key"):
        read(tmp_path)
    for file in path.parent.iterdir():
        file.unlink()
    path.with_name("instances_train2017.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no file \*keypoints\*\.json\. Expected .*instances_tra"):
        read(tmp_path)


def test_persons_of_one_picture_are_in_one_split(tmp_path: Path) -> None:
    annotations = [person(index // 3) for index in range(30)]
    path = write(tmp_path, annotations=annotations, count=10)
    data = coco(str(path), str(tmp_path / "train2017"), size=[16, 12], task_name="pose")
    parts = (data.train, data.validation, data.test)
    pictures = [{row // 3 for row in part.origin.tolist()} for part in parts]
    assert sum(map(len, pictures)) == len(set().union(*pictures)) == 10
