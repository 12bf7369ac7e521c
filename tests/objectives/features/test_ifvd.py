from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch, Objectives
from instil.objectives.features.ifvd import IFVD, ifvd_loss


def variation(image: np.ndarray, label: np.ndarray) -> dict[tuple[int, int], float]:
    """Return the cosine of each labelled position of (C, H, W) with the mean of its class."""
    cosines = {}
    places = [
        (row, column)
        for row in range(label.shape[0])
        for column in range(label.shape[1])
        if label[row, column] != UNLABELLED
    ]
    for row, column in places:
        same = [image[:, i, j] for i, j in places if label[i, j] == label[row, column]]
        own, prototype = image[:, row, column], np.mean(same, 0)
        cosines[row, column] = own @ prototype / np.sqrt((own @ own) * (prototype @ prototype))
    return cosines


def labels(seed: int = 0) -> Tensor:
    label = torch.randint(0, 3, (3, 8, 6), generator=torch.Generator().manual_seed(seed)) * 40
    label[torch.rand(3, 8, 6, generator=torch.Generator().manual_seed(seed)) < 0.3] = UNLABELLED
    return label


def test_agrees_with_plain_loops() -> None:
    student, teacher, label = (
        torch.randn(3, 4, 4, 3, dtype=torch.float64),
        torch.randn(3, 7, 4, 3, dtype=torch.float64),
        labels(),
    )
    label[2] = UNLABELLED
    expected = []
    for student_map, teacher_map, own in zip(
        student.numpy(), teacher.numpy(), label[:, ::2, ::2].numpy(), strict=True
    ):
        a, b = variation(student_map, own), variation(teacher_map, own)
        expected.append(np.mean([(a[position] - b[position]) ** 2 for position in a]) if a else 0.0)
    assert np.allclose(ifvd_loss(student, teacher, label, reduction="none"), expected, rtol=1e-10)
    assert np.isclose(float(ifvd_loss(student, teacher, label)), np.mean(expected[:2]))


@pytest.mark.parametrize("why", ["unlabelled", "invalid"])
def test_pixels_that_do_not_count_change_nothing(why: str) -> None:
    label, valid = torch.randint(0, 3, (2, 4, 4)), torch.ones(2, 4, 4, dtype=torch.bool)
    student, teacher = {"features": torch.randn(2, 5, 4, 4)}, {"features": torch.randn(2, 5, 4, 4)}
    if why == "unlabelled":
        label[:, 1] = UNLABELLED
    else:
        valid[:, 1] = False
    batch: Batch = {"label": label, "valid": valid}
    objectives = Objectives({"ifvd": IFVD()})
    objectives.build(student, teacher)
    student_map = {"features": student["features"].clone().requires_grad_()}
    loss = objectives(student_map, teacher, batch).losses["ifvd"]
    (gradient,) = torch.autograd.grad(loss, student_map["features"])
    assert gradient[:, :, 1].abs().sum() == 0
    assert gradient[:, :, 2].abs().sum() > 0
    other = student["features"].clone()
    other[:, :, 1] = 50.0
    assert torch.allclose(objectives({"features": other}, teacher, batch).losses["ifvd"], loss)


def test_lone_pixels_are_their_own_prototype() -> None:
    label = torch.arange(9).view(1, 3, 3)
    assert ifvd_loss(torch.randn(1, 4, 3, 3), torch.randn(1, 6, 3, 3), label) < 1e-12


@pytest.mark.parametrize("shapes", [((5, 8, 8), (17, 6)), ((16, 9), (7, 8, 8))])
def test_tokens_on_either_side(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    student, teacher = ({"features": (torch.randn(3, *shape),)} for shape in shapes)
    objective = IFVD()
    objective.build(student, teacher)
    values = objective(student, teacher, {"label": torch.randint(0, 3, (3, 8, 8))})
    assert values.shape == (3,)
    assert (values > 0).all()


def test_compiles_without_graph_breaks() -> None:
    student, teacher, label = torch.randn(3, 4, 4, 3), torch.randn(3, 7, 4, 3), labels()
    assert torch.allclose(
        torch.compile(ifvd_loss, fullgraph=True, backend="eager")(student, teacher, label),
        ifvd_loss(student, teacher, label),
    )
