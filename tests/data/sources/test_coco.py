"""Annotations of COCO: pictures, boxes, splits, sizes and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from instil.data.augmentation import BoxAugmentation
from instil.data.boxed_pictures import BoxedPictures
from instil.data.loader import Loader
from instil.data.sources.coco import coco
from instil.data.sources.npz import npz

CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


def write(folder: Path, name: str = "train.json", count: int = 4, **changes: Any) -> Path:
    """Picture ``row`` of 20 x 10 pixels has ``row`` boxes."""
    folder.mkdir(exist_ok=True)
    images, annotations = [], []
    for row in range(count):
        Image.new("RGB", (20, 10), (row, 0, 0)).save(folder / f"{row}.png")
        images.append({"id": 10 + row, "file_name": f"{row}.png", "width": 20, "height": 10})
        for box in range(row):
            category = CATEGORIES[box % 2]["id"]
            annotation = {"image_id": 10 + row, "category_id": category, "bbox": [box, 1, 4, 5]}
            annotations.append(annotation | {"iscrowd": 0})
    annotations.append({"image_id": 10, "category_id": 7, "bbox": [0, 0, 5, 5], "iscrowd": 1})
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    path = folder / name
    path.write_text(json.dumps(content | changes))
    return path


def test_boxes_of_any_number_are_resized_with_their_pictures(tmp_path: Path) -> None:
    write(tmp_path)
    data = coco("train.json", size=40, validation=0.25, test=0.34, base=tmp_path)
    # Classes are in the order of their ids.
    assert (data.kind, data.classes) == ("boxes", ("cat", "dog"))
    files = dict.fromkeys(("train", "validation", "test"), "train.json")
    whole = coco(files, base=tmp_path)
    assert isinstance(whole.train, BoxedPictures)
    assert whole.train.facts == {"classes": 2, "channels": 3, "size": (10, 20)}
    batch = whole.train.__getitems__([0, 3])
    assert batch["image"].shape == (2, 3, 10, 20)
    assert batch["num_boxes"].tolist() == [0, 3]
    assert batch["label"].tolist() == [[-100] * 3, [1, 0, 1]]
    assert batch["box"][1].tolist() == [[0, 1, 4, 6], [1, 1, 5, 6], [2, 1, 6, 6]]
    resized = coco(files, size=40, base=tmp_path).train
    assert resized.__getitems__([3])["box"][0, 0].tolist() == [0, 4, 8, 24]
    # Subsets, hidden labels and augmentation work as for boxes in memory.
    part = resized.subset([2, 3]).keep_labels(torch.tensor([0]))
    assert part.__getitems__([0, 1])["num_boxes"].tolist() == [2, -100]
    (first,) = Loader(part, 2, 0, augment=BoxAugmentation(flip=True))
    assert first["image"].shape == (2, 3, 40, 40)


def test_folders_of_splits_and_chosen_classes(tmp_path: Path) -> None:
    for part in ("one", "two"):
        write(tmp_path / part, count=3)
    files = {"train": "one/train.json", "test": "two/train.json"}
    images = {"train": "one", "test": "two"}
    data = coco(files, images, classes=["cat"], validation=0.4, base=tmp_path)
    assert data.classes == ("cat",)
    assert data.test.__getitems__([2])["num_boxes"].tolist() == [1]


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"categories": None}, {}, "no list 'categories'. Expected images, annotations and"),
        ({"images": []}, {}, "images: the list is empty"),
        ({"images": [{"id": 1}]}, {}, r"images\[0\]: Expected id and file_name, got id"),
        (
            {"annotations": [{"image_id": 1, "category_id": 3, "bbox": [0, 0, 1, 1]}]},
            {},
            r"annotations\[0\].image_id: unknown id 1",
        ),
        (
            {"annotations": [{"image_id": 10, "category_id": 3, "bbox": [0, 0]}]},
            {},
            r"annotations\[0\].bbox: Expected left, top, width and height, got \[0, 0\]",
        ),
        (
            {"annotations": [{"image_id": 10, "category_id": 3, "bbox": [0, 0, None, 4]}]},
            {},
            r"annotations\[0\].bbox: Expected left, top, width and height, got \[0, 0, None, 4\]",
        ),
        ({"annotations": [3]}, {}, r"annotations\[0\]: Expected image_id, category_id and bbox"),
        (
            {"images": [{"id": 1, "file_name": "0.png"}, {"id": 1, "file_name": "1.png"}]},
            {},
            r"images\[1\].id: 1 is the id of 0.png, too",
        ),
        ({"images": [{"id": [1], "file_name": "0.png"}]}, {}, r"images\[0\].id: Expected a number"),
        (
            {
                "images": [{"id": 1, "file_name": "0.png", "width": 0, "height": 4}],
                "annotations": [],
            },
            {},
            "width and height of 0.png: Expected positive numbers, got 0 and 4",
        ),
        ({}, {"classes": ["cat", "cat"]}, "classes: Expected different names of categories"),
        ({"categories": [*CATEGORIES, {"id": 1, "name": "cat"}]}, {}, "two have one name"),
        ({}, {"classes": ["cta"]}, "classes: the files have no category 'cta'.* Did you mean cat"),
        ({}, {"folder": {"test": "."}}, "folder.train: missing"),
    ],
)
def test_errors(
    tmp_path: Path, changes: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    write(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        coco("train.json", base=tmp_path, **options)


def test_invisible_boxes_are_left_out_and_groups_are_apart(tmp_path: Path) -> None:
    boxes = [[-2, 2, 6, 4], [20, 2, 5, 5], [3, 3, 0, 4], [3, 3, 4, -4], [-5, 0, 5, 5]]
    annotations = [{"image_id": 10, "category_id": 7, "bbox": box} for box in boxes]
    annotations.append({"image_id": 10, "category_id": 7, "bbox": [0, 0, 5, 5], "iscrowd": 1})
    write(tmp_path, annotations=annotations)
    files = dict.fromkeys(("train", "validation", "test"), "train.json")
    data = coco(files, base=tmp_path)
    assert data.train.__getitems__([0])["box"][0].tolist() == [[-2, 2, 4, 6]]
    batch = coco(files, size=40, base=tmp_path).train.subset([1, 0]).__getitems__([0, 1])
    assert batch["group_label"].tolist() == [[-100], [1]]
    assert batch["group_box"].tolist() == [[[-100] * 4], [[0, 0, 10, 20]]]
    without = coco(files, classes=["cat"], base=tmp_path)
    assert "group_box" not in without.train.__getitems__([0])
    assert data.notes == (
        "3 groups of objects (iscrowd): not learned, and what a detector finds there does not "
        "count in evaluations",
        "left out: 12 boxes without an area inside of their picture",
    )


def test_a_picture_of_another_size_than_in_its_annotations_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    Image.new("RGB", (10, 20)).save(tmp_path / "1.png")
    data = coco({"train": "train.json", "test": "train.json"}, size=8, base=tmp_path)
    with pytest.raises(ValueError, match=r"1\.png: 10 x 20 pixels. Expected 20 x 10, as in its"):
        data.test.__getitems__([0, 1])


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "2.png").unlink()
    with pytest.raises(ValueError, match=r"folder: no picture '2.png'.* Set folder to that of"):
        coco("train.json", base=tmp_path)


def test_padded_boxes_of_an_archive(tmp_path: Path) -> None:
    image = np.zeros((6, 8, 8), np.uint8)
    label = np.array([[0, 1], [2, -100], [-100, -100]] * 2)
    box = np.where(label[..., None] < 0, -100, np.array([1, 2, 5, 7]))
    np.savez(tmp_path / "scenes.npz", image=image, label=label, box=box)
    data = npz("scenes.npz", validation=0.34, test=0.34, base=tmp_path, task_name="detection")
    assert (data.kind, data.classes) == ("boxes", ("0", "1", "2"))
    counts = torch.cat([part.__getitems__([0, 1])["num_boxes"] for part in (data.train, data.test)])
    assert set(counts.tolist()) <= {0, 1, 2}
    np.savez(tmp_path / "wrong.npz", image=image, label=label, box=box[:, :1])
    with pytest.raises(ValueError, match=r"box: wrong shape. Expected a label \(N, K\) of class"):
        npz("wrong.npz", base=tmp_path, task_name="detection")
