from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.core import Objective
from instil.functional.attention_maps import attention_map
from instil.objectives.features.attention_transfer import AttentionTransfer, attention_transfer_loss
from instil.testing import check_objective


def reference(student: Tensor, teacher: Tensor, power: float, form: str) -> list[float]:
    """Compute the loss position by position, for maps of one size."""
    values = []
    for a, b in zip(student.numpy(), teacher.numpy(), strict=True):
        maps = []
        for stage in (a, b):
            energy = np.array(
                [
                    sum(abs(channel[i, j]) ** power for channel in stage)
                    for i in range(stage.shape[1])
                    for j in range(stage.shape[2])
                ]
            )
            maps.append(energy / np.sqrt((energy**2).sum()))
        squares = (maps[0] - maps[1]) ** 2
        values.append(squares.mean() if form == "code" else np.sqrt(squares.sum()))
    return values


@pytest.mark.parametrize("power", [1, 2, 3, 4, 2.5])
@pytest.mark.parametrize("form", ["code", "paper"])
def test_both_forms_agree_with_a_plain_loop(power: float, form: str) -> None:
    """Code and paper differ (no length, no root in the code): both are here."""
    student, teacher = (
        torch.randn(3, 2, 4, 5, dtype=torch.float64),
        torch.randn(3, 6, 4, 5, dtype=torch.float64),
    )
    values = attention_transfer_loss(student, teacher, power, form, reduction="none")
    assert np.allclose(values, reference(student, teacher, power, form), rtol=1e-10)


def test_the_larger_map_is_pooled() -> None:
    student, teacher = (
        torch.randn(2, 3, 8, 4, dtype=torch.float64),
        torch.randn(2, 5, 4, 6, dtype=torch.float64),
    )
    pooled = (
        student.reshape(2, 3, 4, 2, 4).mean(3),
        torch.nn.functional.adaptive_avg_pool2d(teacher, (4, 4)),
    )
    assert np.allclose(
        attention_transfer_loss(student, teacher, reduction="none"),
        reference(*pooled, 2, "code"),
        rtol=1e-10,
    )


def test_a_single_tensor_of_features_is_not_zero() -> None:
    """KD_Lib's attention loss is identically zero unless the model returns a tuple of maps."""
    student, teacher = torch.randn(4, 3, 4, 4, requires_grad=True), torch.randn(4, 5, 4, 4)
    objective = AttentionTransfer()
    objective.build({"features": student}, {"features": teacher})
    loss = objective({"features": student}, {"features": teacher}, {}).mean()
    assert loss > 1e-3
    loss.backward()
    assert student.grad is not None
    assert student.grad.abs().sum() > 0


@pytest.mark.parametrize("stage", [(4, 10), (4, 3, 1, 1), (4, 1, 3), (4, 2, 3)])
def test_one_position_is_an_error(stage: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="more than one position"):
        AttentionTransfer().build(
            {"features": torch.randn(*stage)}, {"features": torch.randn(4, 3, 4, 4)}
        )


def test_one_sample_keeps_its_batch_dimension() -> None:
    """A hook of image_classification_sota squeezes a batch of one."""
    student, teacher = torch.randn(1, 3, 4, 4), torch.randn(1, 5, 4, 4)
    assert attention_transfer_loss(student, teacher, reduction="none").shape == (1,)
    assert attention_map(student).shape == (1, 16)


@pytest.mark.parametrize("form", ["code", "paper"])
@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e4, 1e15])
@pytest.mark.parametrize("power", [1, 2, 6])
def test_extreme_values_and_a_match_are_finite(form: str, scale: float, power: float) -> None:
    student = (torch.randn(3, 2, 4, 4) * scale).requires_grad_()
    for teacher in (torch.randn(3, 5, 4, 4), student.detach().clone()):
        loss = attention_transfer_loss(student, teacher, power, form)  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad(loss, student)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()
    assert loss == 0


def test_channels_of_one_map_only_matter_by_their_strength() -> None:
    student = torch.randn(2, 3, 4, 4)
    assert attention_transfer_loss(student, -7 * student[:, [2, 0, 1]]) < 1e-12


def test_unknown_form() -> None:
    with pytest.raises(ValueError, match=r"got 'papr'. Did you mean paper"):
        attention_transfer_loss(torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), form="papr")


@pytest.mark.parametrize("form", ["code", "paper"])
def test_any_pair_of_networks(check_pair: Callable[[Objective], None], form: str) -> None:
    check_pair(AttentionTransfer(form=form))  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["code", "paper"])
def test_contracts(form: str) -> None:
    check_objective(lambda: AttentionTransfer(form=form))  # type: ignore[arg-type]


def test_compiles_without_graph_breaks() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 8, 8)
    compiled = torch.compile(attention_transfer_loss, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(student, teacher), attention_transfer_loss(student, teacher))
