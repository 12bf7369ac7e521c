import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from instil.data.augmentation import Augmentation, BoxAugmentation, shifted


def batch(index: torch.Tensor, view: int = 0, size: int = 5) -> dict[str, torch.Tensor]:
    image = (
        index[:, None, None, None] * 31 + torch.arange(2 * size * size).reshape(1, 2, size, size)
    ).float() / 1e4
    return {"image": image, "index": index, "view": torch.full_like(index, view)}


def test_shifts_and_flips_are_those_of_a_plain_loop():
    image = torch.rand(6, 2, 4, 5)
    down, right = torch.tensor([0, 1, 2, 3, 4, 2]), torch.tensor([4, 3, 2, 1, 0, 2])
    mirrored = torch.tensor([False, True, False, True, False, True])
    for index, result in enumerate(shifted(image, down, right, 2, mirrored)):
        for y in range(4):
            for x in range(5):
                row = y + int(down[index]) - 2
                column = (4 - x if mirrored[index] else x) + int(right[index]) - 2
                inside = 0 <= row < 4 and 0 <= column < 5
                expected = image[index, :, row, column] if inside else torch.zeros(2)
                assert torch.equal(result[:, y, x], expected)


@settings(deadline=None, max_examples=30)
@given(
    rows=st.lists(st.integers(0, 10_000), min_size=1, max_size=12, unique=True),
    view=st.integers(0, 500),
    seed=st.integers(0, 99),
)
def test_the_augmentation_of_an_image_does_not_depend_on_the_batch(rows, view, seed):
    augment = Augmentation(crop=2, flip=True, seed=seed)
    together = augment(batch(torch.tensor(rows), view))["image"]
    alone = torch.cat([augment(batch(torch.tensor([row]), view))["image"] for row in rows])
    assert torch.equal(together, alone)


def test_views_of_one_batch_may_differ():
    augment, index = Augmentation(crop=2, flip=True), torch.arange(8)
    mixed = batch(index) | {"view": torch.arange(8)}
    for position, image in enumerate(augment(mixed)["image"]):
        assert torch.equal(image, augment(batch(index, position))["image"][position])


def test_seed_view_and_image_all_matter_and_draws_are_uniform():
    index = torch.arange(4000)
    image = torch.zeros(4000, 1, 5, 5)
    image[:, 0, 2, 1] = 1  # one bright pixel shows shift and flip
    plain = {"image": image, "index": index, "view": torch.zeros_like(index)}

    def places(augment: Augmentation, view: int) -> torch.Tensor:
        return augment(plain | {"view": torch.full_like(index, view)})["image"].flatten(1).argmax(1)

    first = places(Augmentation(1, True, 0), 0)
    for other in (
        places(Augmentation(1, True, 1), 0),
        places(Augmentation(1, True, 0), 1),
        first.roll(1),
    ):
        assert 0.02 < (first == other).float().mean() < 0.2  # 18 outcomes, some of them equal
    counts = first.bincount(minlength=25).reshape(5, 5)
    rows = counts.sum(1)
    assert rows[[0, 4]].sum() == 0
    assert ((rows[1:4] - 4000 / 3).abs() < 150).all()
    assert counts[:, :3].sum() / 4000 == pytest.approx(
        2 / 3, abs=0.04
    )  # not mirrored: columns 0-2, mirrored: 2-4, half of each


def test_without_options_nothing_changes():
    plain = batch(torch.arange(4))
    assert torch.equal(Augmentation()(plain)["image"], plain["image"])


def test_a_negative_crop_is_refused():
    with pytest.raises(ValueError, match=r"augment\.crop"):
        Augmentation(crop=-1)


def with_boxes(index: torch.Tensor, num_boxes: int | None = None) -> dict[str, torch.Tensor]:
    """Images of width 7 with one bright pixel at column 1, and the box of that pixel."""
    image = torch.zeros(len(index), 1, 4, 7)
    image[:, 0, 2, 1] = 1
    box = torch.tensor([1.0, 2.0, 2.0, 3.0]).expand(len(index), 4)
    if num_boxes is not None:
        box = torch.stack([box, torch.full_like(box, -100)], 1)
    return {"image": image, "box": box, "index": index, "view": torch.zeros_like(index)}


@pytest.mark.parametrize("num_boxes", [None, 2])
def test_boxes_are_mirrored_with_their_images(num_boxes):
    index = torch.arange(400)
    batch = with_boxes(index, num_boxes)
    result = BoxAugmentation(flip=True, seed=1)(batch)
    column = result["image"].argmax(3)[:, 0, 2]
    box = result["box"] if num_boxes is None else result["box"][:, 0]
    assert set(column.tolist()) == {1, 5}
    assert 150 < int((column == 5).sum()) < 250
    assert torch.equal(box[:, 0], column.float())
    assert torch.equal(box[:, 2], column.float() + 1)
    assert torch.equal(box[:, [1, 3]], torch.tensor([2.0, 3.0]).expand(400, 2))
    if num_boxes is not None:
        assert (result["box"][:, 1] == -100).all()
    alone = BoxAugmentation(flip=True, seed=1)({key: value[7:8] for key, value in batch.items()})
    assert torch.equal(alone["image"], result["image"][7:8])
    assert torch.equal(BoxAugmentation()(batch)["box"], batch["box"])


def test_boxes_without_images_cannot_be_mirrored():
    batch = with_boxes(torch.arange(2))
    del batch["image"]
    with pytest.raises(ValueError, match=r"augment\.flip: the samples have boxes"):
        BoxAugmentation(flip=True)(batch)


def test_masks_of_objects_are_mirrored_with_their_boxes():
    index = torch.arange(8)
    masks = torch.zeros(8, 1, 5, 5)
    masks[:, :, 1:3, :2] = 1
    boxes = torch.tensor([0.0, 1.0, 2.0, 3.0]).expand(8, 1, 4)
    result = BoxAugmentation(flip=True)(batch(index) | {"box": boxes, "masks": masks})
    assert 0 < int((result["box"][:, 0, 0] == 3).sum()) < 8
    for (left, top, right, bottom), mask in zip(
        result["box"][:, 0].long(), result["masks"], strict=True
    ):
        assert mask[0, top:bottom, left:right].sum() == mask.sum() == 4
