"""Objects with prompts: masks, boxes and points against loops, and splits by image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from instil.data.prompted_objects import prompted_objects
from instil.data.sources.object_masks import object_masks
from instil.data.sources.prompted_digits import prompted_digits


def scenes(count: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Images with two rectangles; the image number is in the first pixel."""
    instances = np.zeros((count, 8, 10), np.uint8)
    instances[:, 1:4, 2:6] = 1
    instances[:, 5:8, 6:9] = 7
    image = np.zeros((count, 8, 10, 3), np.uint8)
    image[:, 0, 0, 0] = np.arange(count)
    return image, instances


def test_every_object_has_its_mask_box_and_a_point_inside() -> None:
    image, instances = scenes(3)
    data = prompted_objects(
        torch.from_numpy(image).float().movedim(3, 1), torch.from_numpy(instances).long()
    )
    batch = data.__getitems__(range(6))
    assert batch["box"].tolist() == [[2, 1, 5, 3], [6, 5, 8, 7]] * 3
    for n in range(6):
        assert torch.equal(
            batch["label"][n] == 1, torch.from_numpy(instances[n // 2] == (1, 7)[n % 2])
        )
        column, row = batch["points"][n, 0].tolist()
        assert batch["label"][n, row, column] == 1
    assert batch["point_labels"].tolist() == [[1]] * 6
    assert batch["image"][:, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert data.facts == {"classes": 2, "channels": 3, "size": (8, 10)}


def test_small_objects_are_left_out() -> None:
    image, instances = (torch.from_numpy(part) for part in scenes(2))
    image = image.float().movedim(3, 1)
    assert len(prompted_objects(image, instances.long(), smallest=10)) == 2
    with pytest.raises(ValueError, match="no image has an object"):
        prompted_objects(image, instances.long(), smallest=40)
    with pytest.raises(ValueError, match=r"Expected \(N, H, W\) of the images"):
        prompted_objects(image, instances.long()[:1])


def test_objects_of_an_image_are_in_one_split(tmp_path: Path) -> None:
    image, instances = scenes()
    path = tmp_path / "scenes.npz"
    np.savez(path, image=image, instances=instances)
    data = object_masks("scenes.npz", smallest=2, validation=0.2, test=0.3, base=tmp_path)
    parts = (data.train, data.validation, data.test)
    numbers = [
        set((255 * part.__getitems__(range(len(part)))["image"][:, 0, 0, 0]).round().tolist())
        for part in parts
    ]
    assert [len(part) for part in numbers] == [10, 4, 6]
    assert not numbers[0] & numbers[1] | numbers[0] & numbers[2] | numbers[1] & numbers[2]
    assert [len(part) for part in parts] == [20, 8, 12]
    np.savez(path, image=image, instances=instances, split=np.arange(20) % 3)
    data = object_masks("scenes.npz", smallest=2, base=tmp_path)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [14, 14, 12]


def test_wrong_archives_raise(tmp_path: Path) -> None:
    image, instances = scenes(4)
    path = tmp_path / "scenes.npz"
    np.savez(path, image=image)
    with pytest.raises(ValueError, match="no array 'instances'"):
        object_masks("scenes.npz", base=tmp_path)
    np.savez(path, image=image[..., 0], instances=instances)
    with pytest.raises(ValueError, match=r"image has the shape \(4, 8, 10\)"):
        object_masks("scenes.npz", base=tmp_path)
    np.savez(path, image=image, instances=instances, split=np.zeros(4))
    with pytest.raises(ValueError, match="validation data: no image has an object"):
        object_masks("scenes.npz", smallest=2, base=tmp_path)


def test_digits_are_objects() -> None:
    data = prompted_digits(scenes=6, size=20, most=2)
    batch = data.train.__getitems__(range(len(data.train)))
    assert batch["image"].shape[1:] == (1, 20, 20)
    assert 6 <= len(data.train) <= 12
    ink = (batch["image"][:, 0] * (batch["label"] == 1)).flatten(1).amax(1)
    assert (ink > 0.5).all()


@pytest.mark.parametrize("split", [["train"] * 20, [0.5] * 20, [3] * 20, [0]])
def test_a_wrong_split_is_an_error(tmp_path: Path, split: list[object]) -> None:
    image, instances = scenes()
    np.savez(tmp_path / "scenes.npz", image=image, instances=instances, split=np.array(split))
    with pytest.raises(ValueError, match=r"scenes.npz: split: expected 0 \(train\)"):
        object_masks("scenes.npz", base=tmp_path)


def test_floating_point_images_lie_in_the_unit_range(tmp_path: Path) -> None:
    image, instances = scenes()
    path = tmp_path / "scenes.npz"
    np.savez(path, image=image.astype(np.float32), instances=instances)
    with pytest.raises(ValueError, match=r"scenes\.npz: .* must lie in \[0, 1\], .* 0 to 19"):
        object_masks("scenes.npz", smallest=2, base=tmp_path)
