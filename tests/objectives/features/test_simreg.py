"""SimReg: squared distance at unit length, through a perceptron."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from instil.objectives.features.simreg import SimReg, simreg_loss


def test_is_two_minus_twice_the_cosine() -> None:
    student, teacher = torch.randn(5, 4).double(), 3 * torch.randn(5, 4).double()
    expected = [
        2 - 2 * a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        for a, b in zip(student.numpy(), teacher.numpy(), strict=True)
    ]
    assert np.allclose(simreg_loss(student, teacher, "none"), expected)
    assert np.isclose(float(simreg_loss(student, teacher)), np.mean(expected))
    with pytest.raises(ValueError, match="simreg_loss: the student's shape"):
        simreg_loss(student, teacher[:, :3])


@pytest.mark.parametrize(
    ("layers", "widths"),
    [(1, [(3, 5)]), (2, [(3, 6), (6, 5)]), (4, [(3, 6), (6, 3), (3, 6), (6, 5)])],
)
def test_the_perceptron_has_the_layers_of_the_paper(
    layers: int, widths: list[tuple[int, int]]
) -> None:
    objective = SimReg(layers)
    outputs = {"embedding": torch.randn(4, 3)}, {"embedding": torch.randn(4, 5)}
    objective.build(*outputs)
    linear = [part for part in objective.modules() if isinstance(part, torch.nn.Linear)]
    assert [(part.in_features, part.out_features) for part in linear] == widths
    losses = objective(*outputs, {})
    assert losses.shape == (4,)
    assert not objective.couples
    predicted, teacher = objective.embed(*outputs)
    torch.testing.assert_close(losses, simreg_loss(predicted, teacher, "none"))
