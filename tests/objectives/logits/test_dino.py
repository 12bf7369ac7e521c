"""DINO against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.core import Objectives
from instil.objectives.logits.dino import DINO, dino_loss


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def test_is_the_mean_over_pairs_of_different_views() -> None:
    student, teacher, centre = drawn(3, 4, 6), drawn(3, 2, 6, seed=1), drawn(6, seed=2)
    expected = [
        np.mean(
            [
                -(
                    softmax((teacher[n, g] - centre).numpy() / 0.07)
                    * np.log(softmax(student[n, v].numpy() / 0.2))
                ).sum()
                for g in range(2)
                for v in range(4)
                if g != v
            ]
        )
        for n in range(3)
    ]
    assert dino_loss(student, teacher, centre, 0.2, 0.07, "none").tolist() == pytest.approx(
        expected
    )


def test_the_centre_follows_the_mean_of_the_counted_samples() -> None:
    objectives = Objectives({"dino": DINO(momentum=0.75)})
    student, teacher = {"view_logits": drawn(4, 3, 5)}, {"view_logits": drawn(4, 2, 5, seed=1)}
    objectives.build(student, teacher)
    batch = {"image": torch.zeros(4, 1), "valid": torch.tensor([True, False, True, True])}
    centre = objectives["dino"].centre
    assert not centre.any()
    objectives.after_step(objectives(student, teacher, batch).state_updates)
    first = 0.25 * teacher["view_logits"][[0, 2, 3]].mean((0, 1))
    torch.testing.assert_close(objectives["dino"].centre, first)
    objectives.after_step(
        objectives(
            student, teacher, batch | {"valid": torch.zeros(4, dtype=torch.bool)}
        ).state_updates
    )
    torch.testing.assert_close(objectives["dino"].centre, first)


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = drawn(2, 2, 4).requires_grad_(), drawn(2, 2, 4, seed=1).requires_grad_()
    dino_loss(student, teacher).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_views_that_do_not_fit_are_refused() -> None:
    for student, teacher in (
        ((2, 1, 4), (2, 1, 4)),
        ((2, 2, 4), (2, 3, 4)),
        ((2, 2, 4), (2, 2, 5)),
    ):
        with pytest.raises(ValueError, match=r"Expected \(N, V, K\) with two or more views"):
            dino_loss(drawn(*student), drawn(*teacher))


@pytest.mark.parametrize("shape", [(4,), (4, 5), (4, 1, 5), (4, 2, 6)])
def test_logits_without_views_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"the views do not fit\. .* got \(4"):
        dino_loss(torch.zeros(shape), torch.zeros(4, 2, 5))
