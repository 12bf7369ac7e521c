from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from instil.core import Batch, Outputs
from instil.functional.noise import box_muller
from instil.objectives.features.jacobian import Jacobian, jacobian_loss, projected_jacobian
from instil.schemes.offline.offline import Offline
from instil.teachers.frozen import Frozen
from instil.testing import check_objective, sample_outputs


@pytest.mark.parametrize("normalize", [False, True])
def test_agrees_with_a_plain_loop(normalize: bool) -> None:
    student, teacher = (
        torch.randn(3, 2, 4, 5, dtype=torch.float64),
        torch.randn(3, 2, 4, 5, dtype=torch.float64),
    )
    expected = []
    for n in range(3):
        total = 0.0
        for p in range(2):
            a, b = (
                side[n, p].numpy().ravel()
                / (np.linalg.norm(side[n, p].numpy()) if normalize else 1)
                for side in (student, teacher)
            )
            total += sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / 2
        expected.append(total)
    assert np.allclose(jacobian_loss(student, teacher, normalize, "none"), expected, rtol=1e-10)
    assert np.isclose(float(jacobian_loss(student, teacher, normalize)), np.mean(expected))


def test_projections_are_of_the_true_jacobian() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    inputs, directions = (
        torch.randn(5, 4, dtype=torch.float64, requires_grad=True),
        torch.randn(5, 2, 3, dtype=torch.float64),
    )
    ours = projected_jacobian(net(inputs), inputs, directions)
    for n in range(5):
        jacobian = torch.autograd.functional.jacobian(net, inputs[n].detach())
        assert isinstance(jacobian, Tensor)
        assert torch.allclose(ours[n], directions[n] @ jacobian, rtol=1e-10)


def test_is_on_average_the_distance_of_the_jacobians() -> None:
    student, teacher = nn.Linear(3, 2), nn.Linear(3, 2)
    batch: Batch = {"x": torch.randn(400, 3), "index": torch.arange(400)}
    scheme = Offline(student, Frozen(teacher), {"jacobian": Jacobian(directions=20)})
    scheme.prepare(batch)
    (update,) = scheme.step(batch)
    expected = (student.weight - teacher.weight).square().sum()
    assert torch.allclose(update.losses["jacobian"], expected, rtol=0.05)
    drawn = box_muller(batch, (20, 2), "objectives.jacobian.directions")
    exact = ((drawn @ (student.weight - teacher.weight)) ** 2).sum(2).mean()
    assert torch.allclose(update.losses["jacobian"], exact, rtol=1e-4)
    update.losses["jacobian"].backward()
    assert student.weight.grad is not None
    assert student.bias.grad is None or not student.bias.grad.any()
    assert teacher.weight.grad is None


def test_other_dimensions_of_the_logits_are_directions_too() -> None:
    inputs = torch.randn(2, 4, requires_grad=True)
    outputs: Outputs = {"logits": inputs.view(2, 2, 2) * 3, "input": inputs}
    objective = Jacobian()
    objective.build(outputs, outputs)
    values = objective(
        outputs, {"logits": inputs.view(2, 2, 2), "input": inputs}, {"index": torch.arange(2)}
    )
    expected = 4 * box_muller({"index": torch.arange(2)}, (4,), "Jacobian.directions").square().sum(
        1
    )
    assert torch.allclose(values, expected)


def test_invalid_inputs_are_errors() -> None:
    student, teacher, batch = sample_outputs()
    with pytest.raises(ValueError, match="no gradient with respect to the input"):
        Jacobian()(student, teacher, batch)
    with pytest.raises(ValueError, match="the same items and classes"):
        Jacobian().build(student, teacher | {"logits": torch.zeros(8, 3)})


def test_contracts() -> None:
    check_objective(lambda: Jacobian(directions=3))


def test_compiles_without_graph_breaks() -> None:
    student, teacher = torch.randn(3, 2, 5), torch.randn(3, 2, 5)
    compiled = torch.compile(jacobian_loss, fullgraph=True, backend="eager")
    for normalize in (False, True):
        assert torch.allclose(
            compiled(student, teacher, normalize), jacobian_loss(student, teacher, normalize)
        )
