from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from instil.core import Objective
from instil.functional.keyed_random import keyed_uniform
from instil.objectives.features.vitkd import (
    MaskedTokenGenerator,
    ViTKD,
    hidden_token_mask,
    vitkd_generation_loss,
    vitkd_mimicking_loss,
)


def test_both_terms_agree_with_a_plain_loop() -> None:
    student, teacher = (
        torch.randn(2, 3, 2, 4, dtype=torch.float64),
        torch.randn(2, 3, 2, 4, dtype=torch.float64),
    )
    hidden = (torch.rand(2, 2, 4) > 0.5).double()
    for n in range(2):
        squares = (student[n].numpy() - teacher[n].numpy()) ** 2
        assert np.isclose(
            vitkd_mimicking_loss(student, teacher, "none")[n], squares.sum(), rtol=1e-12
        )
        expected = (
            sum(squares[:, i, j].sum() for i in range(2) for j in range(4) if hidden[n, i, j])
            / 0.25
        )
        assert np.isclose(
            vitkd_generation_loss(student, teacher, hidden, 0.25, "none")[n], expected, rtol=1e-12
        )


@pytest.mark.parametrize(("ratio", "expected"), [(0.5, 3), (0.3, 2), (1.0, 5)])
def test_the_tokens_of_least_noise_stay(ratio: float, expected: int) -> None:
    noise = torch.tensor([[0.3, 0.1, 0.9, 0.5, 0.2]])
    hidden = hidden_token_mask(noise, ratio)
    assert hidden.sum() == expected
    assert sorted(noise[hidden == 1].tolist()) == sorted(noise[0].tolist())[-expected:]


def test_hidden_tokens_do_not_change_the_generated_features() -> None:
    generator = MaskedTokenGenerator(torch.nn.Identity(), 3)
    student, hidden = torch.randn(1, 3, 2, 2), torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    changed = student.clone()
    changed[0, :, 0, 0] += 5
    assert torch.equal(generator(student, hidden), generator(changed, hidden))
    changed[0, :, 1, 1] += 5
    assert not torch.equal(generator(student, hidden), generator(changed, hidden))


def test_all_but_the_deepest_pair_are_mimicked() -> None:
    student = {"features": tuple(torch.randn(3, 10, 4) for _ in range(3))}
    teacher = {"features": tuple(torch.randn(3, 10, 6) for _ in range(3))}
    batch = {"index": torch.arange(3), "step": torch.tensor(1)}
    objective = ViTKD(mimicking=0.5, generation=2.0, ratio=0.4)
    objective.build(student, teacher)
    assert (
        objective.plan[-1]
        == "student 2 (10x4) <- teacher 2 (10x6): conv 1x1, generated from the visible tokens"
    )
    expected = torch.zeros(3)
    maps = [stage[:, 1:].mT.reshape(3, 6, 3, 3) for stage in teacher["features"]]
    for stage in (0, 1):
        expected += 0.5 * vitkd_mimicking_loss(
            objective.adapters[stage](student["features"][stage]), maps[stage], "none"
        )
    hidden = hidden_token_mask(keyed_uniform(batch, 9, f"{objective.stream}.mask"), 0.4).view(
        3, 3, 3
    )
    expected += 2 * vitkd_generation_loss(
        objective.adapters[2](student["features"][2], hidden), maps[2], hidden, 0.4, "none"
    )
    assert torch.allclose(objective(student, teacher, batch), expected)
    moved = objective(student, teacher, batch | {"step": torch.tensor(2)})
    assert not torch.allclose(moved, expected), "other tokens are hidden in another step"


def test_any_two_nets(check_pair: Callable[[Objective], None]) -> None:
    check_pair(ViTKD())


def test_compiles_whole() -> None:
    student, teacher, noise = torch.randn(2, 3, 2, 2), torch.randn(2, 3, 2, 2), torch.rand(2, 4)

    def whole(student: torch.Tensor, teacher: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        hidden = hidden_token_mask(noise, 0.5).view(2, 2, 2)
        return vitkd_generation_loss(student, teacher, hidden) + vitkd_mimicking_loss(
            student, teacher
        )

    assert torch.allclose(
        torch.compile(whole, fullgraph=True, backend="eager")(student, teacher, noise),
        whole(student, teacher, noise),
    )
