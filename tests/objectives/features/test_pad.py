from __future__ import annotations

import math

import pytest
import torch

from instil.objectives.features.pad import PAD, pad_loss


def test_is_the_gaussian_likelihood_of_every_element() -> None:
    student, teacher, log_variance = (torch.randn(3, 5).double() for _ in range(3))
    for n, ours in enumerate(pad_loss(student, teacher, log_variance, 0.1, "none")):
        expected = 0.0
        for d in range(5):
            squared = (float(student[n, d]) - float(teacher[n, d])) ** 2
            expected += squared / (0.1 + math.exp(float(log_variance[n, d]))) + float(
                log_variance[n, d]
            )
        assert float(ours) == pytest.approx(expected / 5)


def test_the_best_variance_is_the_squared_error() -> None:
    student, teacher = torch.zeros(1, 1).double(), torch.full((1, 1), 3.0).double()
    log_variance = torch.full((1, 1), math.log(9.0)).double().requires_grad_()
    pad_loss(student, teacher, log_variance, 1e-12).backward()
    assert log_variance.grad is not None
    assert float(log_variance.grad) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("extreme", [-1e4, 1e4])
def test_extreme_variances_have_a_finite_gradient(extreme: float) -> None:
    student, log_variance = (
        torch.ones(2, 3, requires_grad=True),
        torch.full((2, 3), extreme, requires_grad=True),
    )
    pad_loss(student, torch.zeros(2, 3), log_variance).backward()
    for tensor in (student, log_variance):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()


def test_a_projection_only_where_the_widths_differ() -> None:
    narrow, wide = {"embedding": torch.randn(4, 3)}, {"embedding": torch.randn(4, 5)}
    for teacher, names in ((narrow, {"log_variance"}), (wide, {"log_variance", "project"})):
        objective = PAD()
        objective.build(narrow, teacher)
        assert {name.split(".")[0] for name, _ in objective.named_parameters()} == names
        values = objective(narrow, teacher, {})
        assert values.shape == (4,)
        values.sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in objective.parameters())


def test_batch_norm_couples_the_samples_and_a_batch_of_one_still_has_a_loss() -> None:
    student, teacher = {"embedding": torch.randn(4, 3)}, {"embedding": torch.randn(4, 5)}
    objective = PAD(norm="batch")
    objective.build(student, teacher)
    assert objective.couples
    assert objective(student, teacher, {}).shape == ()
    assert torch.isfinite(
        objective({"embedding": torch.randn(1, 3)}, {"embedding": torch.randn(1, 5)}, {})
    )
    with pytest.raises(ValueError, match="got 'group'"):
        PAD(norm="group")  # type: ignore[arg-type]


def test_a_whole_sample_can_be_uncertain() -> None:
    student, teacher = (
        {"embedding": torch.tensor([[0.0, 1.0], [0.0, 9.0]])},
        {"embedding": torch.zeros(2, 2)},
    )
    objective = PAD()
    objective.build(student, teacher)
    with torch.no_grad():
        linear = next(
            module
            for module in objective.log_variance.modules()
            if isinstance(module, torch.nn.Linear)
        )
        linear.weight.copy_(torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
        linear.bias.zero_()
    sure, unsure = objective(student, teacher, {}).tolist()
    assert sure == pytest.approx(1 / math.exp(1) / 2 + 1, rel=1e-5)
    assert unsure == pytest.approx(81 / math.exp(9) / 2 + 9, rel=1e-5)


def test_different_shapes_are_an_error() -> None:
    with pytest.raises(ValueError, match="pad_loss: the student's shape"):
        pad_loss(torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2, 3))


def test_compiles_whole() -> None:
    student, teacher, log_variance = torch.randn(2, 3), torch.randn(2, 3), torch.randn(2, 3)
    compiled = torch.compile(pad_loss, fullgraph=True, backend="eager")
    assert torch.allclose(
        compiled(student, teacher, log_variance), pad_loss(student, teacher, log_variance)
    )
