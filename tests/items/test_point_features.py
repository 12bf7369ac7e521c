"""Features of point sets: maps of the same points on both sides, and ambiguous layouts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from instil.core import Objectives
from instil.items.point_features import align_point_features
from instil.objectives.features.fitnet import FitNet
from instil.objectives.relations.similarity_preserving import SimilarityPreserving


def outputs(num_points: int, channels: int = 4, seed: int = 0, **others: Any) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "features": (torch.randn(2, num_points, channels, generator=generator),),
        "positions": torch.randn(2, num_points, 3, generator=generator),
        **others,
    }


def dense_and_sparse() -> tuple[dict[str, Any], dict[str, Any]]:
    """A teacher of nine points, and a student of three of them."""
    teacher = outputs(9, 5)
    student = outputs(3) | {"positions": teacher["positions"][:, [2, 7, 4]]}
    return student, teacher


def test_teacher_features_are_those_of_the_students_points() -> None:
    student, teacher = dense_and_sparse()
    new_student, new_teacher = align_point_features(student, teacher)
    assert new_student["features"][0].shape == (2, 4, 1, 3)
    torch.testing.assert_close(new_student["features"][0][:, :, 0].mT, student["features"][0])
    torch.testing.assert_close(
        new_teacher["features"][0][:, :, 0].mT, teacher["features"][0][:, [2, 7, 4]]
    )


def test_a_second_alignment_changes_nothing() -> None:
    once = align_point_features(*dense_and_sparse())
    again = align_point_features(*once)
    for first, second in zip(once, again, strict=True):
        assert torch.equal(first["features"][0], second["features"][0])


def test_the_order_of_the_teachers_points_does_not_matter() -> None:
    student, teacher = dense_and_sparse()
    order = torch.tensor([3, 1, 0, 2, 8, 7, 6, 5, 4])
    shuffled = {
        "features": (teacher["features"][0][:, order],),
        "positions": teacher["positions"][:, order],
    }
    torch.testing.assert_close(
        align_point_features(student, shuffled)[1]["features"][0],
        align_point_features(student, teacher)[1]["features"][0],
    )


def test_levels_of_fewer_points_have_their_own_positions() -> None:
    student = outputs(3)
    teacher = outputs(9)
    for side, sizes in ((student, (3, 2)), (teacher, (9, 4))):
        side["features"] = tuple(torch.randn(2, size, 5) for size in sizes)
        side["positions"] = tuple(side["positions"][:, :size] for size in sizes)
    _, aligned = align_point_features(student, teacher)
    assert [level.shape for level in aligned["features"]] == [(2, 5, 1, 3), (2, 5, 1, 2)]


def test_every_member_of_an_ensemble_is_aligned() -> None:
    student, teacher = dense_and_sparse()
    _, aligned = align_point_features(student, {"members": (teacher, teacher)})
    assert [member["features"][0].shape for member in aligned["members"]] == [(2, 5, 1, 3)] * 2


def test_outputs_without_positions_stay_as_they_are() -> None:
    image = {"features": (torch.randn(2, 16, 4),)}
    assert align_point_features(image, image)[0] is image


def test_vectors_and_images_stay_as_they_are() -> None:
    vector, image = torch.randn(2, 4), torch.randn(2, 4, 8, 8)
    student = outputs(3) | {"features": (vector, image)}
    features = align_point_features(student, {})[0]["features"]
    assert features[0] is vector
    assert features[1] is image


@pytest.mark.parametrize(
    ("level", "message"),
    [
        (torch.randn(2, 4, 3), r"ambiguous\. .* path@signal for \(N, C, P\)"),
        (torch.randn(2, 3, 3), "the layout of .2, 3, 3. with 3 points is ambiguous"),
        (torch.randn(2, 16, 4), "does not fit the role positions.*each of the 3 points"),
    ],
)
def test_a_layout_that_is_not_clear_raises(level: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=rf"features\[0\] of the student: .*{message}"):
        align_point_features(outputs(3) | {"features": (level,)}, {})


def test_numbers_of_levels_that_do_not_fit_raise() -> None:
    student = outputs(3)
    two = student | {"positions": (student["positions"],) * 2}
    with pytest.raises(ValueError, match="the student has 2 of them for 1 levels"):
        align_point_features(two, {})
    two["features"] = student["features"] * 2
    with pytest.raises(ValueError, match="points for 2 levels of features, and the teacher has 1"):
        align_point_features(two, outputs(9))


def test_a_feature_loss_compares_the_features_of_the_same_points() -> None:
    student, teacher = dense_and_sparse()
    batch = {"index": torch.arange(2), "x": torch.zeros(2, 1)}
    objectives = Objectives({"fitnet": FitNet()})
    objectives.build(student, teacher)
    assert objectives["fitnet"].reads["teacher"] == ("features", "positions")
    adapted = objectives["fitnet"].adapters[0](student["features"][0].mT.unsqueeze(2))
    expected = (adapted[:, :, 0].mT - teacher["features"][0][:, [2, 7, 4]]).square().mean()
    loss = objectives(student, teacher, batch).losses["fitnet"]
    torch.testing.assert_close(loss, expected)


def test_a_loss_that_couples_the_batch_reads_the_positions_too() -> None:
    student, teacher = dense_and_sparse()
    objectives = Objectives({"sp": SimilarityPreserving()})
    objectives.build(student, teacher)
    batch = {"index": torch.arange(2), "x": torch.zeros(2, 1)}
    assert objectives(student, teacher, batch).losses["sp"].isfinite()


def test_points_and_images_are_not_compared_by_position() -> None:
    objectives = Objectives({"fitnet": FitNet()})
    image = {"features": (torch.randn(2, 4, 8, 8),)}
    with pytest.raises(
        ValueError, match=r"objectives\.fitnet: .* only the student returns positions of points"
    ):
        objectives.build(outputs(3), image)
    with pytest.raises(ValueError, match="only the teacher returns positions"):
        objectives.build(image, outputs(3))
