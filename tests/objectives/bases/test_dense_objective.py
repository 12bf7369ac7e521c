from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Card
from instil.functional.class_pixels import labelled_images, pixel_labels
from instil.functional.feature_maps import downsample_labels, resize_to_common
from instil.modules.adapters import common_grid
from instil.objectives.bases.feature_objective import FeatureObjective


class Labelled:
    """Loss that needs the label of every pixel."""


def weights(batch: Batch) -> list[float]:
    return labelled_images(pixel_labels(batch, Labelled())).tolist()


def test_both_sides_come_to_the_smaller_grid() -> None:
    student_values, teacher_values = resize_to_common(
        torch.randn(2, 3, 8, 4), torch.randn(2, 17, 5)
    )
    assert student_values.shape == (2, 3, 4, 4)
    assert teacher_values.shape == (2, 5, 4, 4)
    assert (
        resize_to_common(torch.randn(2, 3, 4, 4).bfloat16(), teacher_values)[0].dtype
        == torch.float32
    )


@pytest.mark.parametrize(("fine", "coarse"), [((8, 6), (4, 3)), ((7, 9), (3, 4)), ((4, 4), (4, 4))])
def test_a_position_has_the_label_of_the_nearest_pixel(
    fine: tuple[int, int], coarse: tuple[int, int]
) -> None:
    label = torch.randint(-100, 200, (2, *fine))
    actual = downsample_labels(label, coarse).view(2, *coarse)
    for row in range(coarse[0]):
        for column in range(coarse[1]):
            assert torch.equal(
                actual[:, row, column],
                label[:, row * fine[0] // coarse[0], column * fine[1] // coarse[1]],
            )


def test_images_without_a_labelled_valid_pixel_do_not_count() -> None:
    label = torch.zeros(4, 2, 2, dtype=torch.int64)
    label[1] = UNLABELLED
    label[2, 0] = UNLABELLED
    batch: Batch = {"label": label}
    assert weights(batch) == [1, 0, 1, 1]
    assert weights(batch | {"valid": torch.tensor([True, True, True, False])}) == [1, 0, 1, 0]
    valid = torch.ones(4, 2, 2, dtype=torch.bool)
    valid[2, 1] = False  # of image 2 only the unlabelled pixels are left
    assert weights(batch | {"valid": valid}) == [1, 0, 0, 1]
    assert (pixel_labels(batch | {"valid": valid}, Labelled())[2] == UNLABELLED).all()


@pytest.mark.parametrize(
    ("batch", "message"),
    [({}, "no label"), ({"label": torch.zeros(4)}, r"a label of shape \(4,\)")],
)
def test_labels_of_images_are_refused(batch: Batch, message: str) -> None:
    with pytest.raises(
        ValueError,
        match=r"Labelled needs a label for every pixel, \(N, H, W\) or \(N, D, H, W\), and "
        rf"the batch has {message}",
    ):
        weights(batch)


def test_auto_is_the_deepest_pair_alone() -> None:
    class Dense(FeatureObjective):
        card = Card("dense")
        deepest = True

        def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
            return common_grid(student, teacher)

    objective = Dense()
    sides = [
        {"features": tuple(torch.randn(2, 3, size, size) for size in sizes)}
        for sizes in ((8, 4), (16, 8, 4))
    ]
    objective.build(*sides)
    assert objective.matched == [(1, 2)]
    assert objective.plan == ["student 1 (3x4x4) <- teacher 2 (3x4x4): on 4x4"]
    objective = Dense(pairs=[[0, 1], [1, 2]])
    objective.build(*sides)
    assert objective.matched == [(0, 1), (1, 2)]
