"""Mean squared error against loops that skip unlabelled outputs."""

from __future__ import annotations

import math

import pytest
import torch

from instil.core import Objectives
from instil.objectives.labels.mean_squared_error import MeanSquaredError, mean_squared_error_loss

OUTPUTS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGET = torch.tensor(
    [[1.0, 2.0, -1.0], [0.5, math.nan, -100.0], [-100.0, -100.0, math.nan], [0.0, 3.0, -100.0]],
    dtype=torch.float64,
)


def loop_losses() -> list[float]:
    values = []
    for row, labels in zip(OUTPUTS.tolist(), TARGET.tolist(), strict=True):
        squares = [(z - y) ** 2 for z, y in zip(row, labels, strict=True) if y == y and y != -100]
        values.append(sum(squares) / len(squares) if squares else 0.0)
    return values


def test_values() -> None:
    torch.testing.assert_close(
        mean_squared_error_loss(OUTPUTS, TARGET, "none"),
        torch.tensor(loop_losses(), dtype=torch.float64),
    )
    assert mean_squared_error_loss(OUTPUTS, TARGET).item() == pytest.approx(sum(loop_losses()) / 3)
    assert mean_squared_error_loss(OUTPUTS.view(2, 2, 3), TARGET.view(2, 2, 3), "none").shape == (
        2,
        2,
    )


def test_unlabelled_outputs_have_no_gradient() -> None:
    outputs = OUTPUTS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(mean_squared_error_loss(outputs, TARGET), outputs)
    unlabelled = TARGET.isnan() | (TARGET == -100)
    assert (gradient[unlabelled] == 0).all()
    assert (gradient[~unlabelled] != 0).all()


def test_as_an_objective_samples_without_any_label_do_not_count() -> None:
    update = Objectives({"it": MeanSquaredError(average="labelled")})(
        {"logits": OUTPUTS}, {}, {"image": OUTPUTS, "label": TARGET}
    )
    torch.testing.assert_close(
        update.losses["it"], mean_squared_error_loss(OUTPUTS, TARGET), check_dtype=False
    )


def test_by_default_the_labelled_share_of_the_batch_is_the_weight() -> None:
    update = Objectives({"it": MeanSquaredError()})(
        {"logits": OUTPUTS}, {}, {"image": OUTPUTS, "label": TARGET}
    )
    expected = 3 / 4 * mean_squared_error_loss(OUTPUTS, TARGET)
    torch.testing.assert_close(update.losses["it"], expected, check_dtype=False)


def test_the_label_of_one_output_may_omit_the_last_dimension() -> None:
    assert torch.equal(
        mean_squared_error_loss(OUTPUTS[:, :1], TARGET[:, 0], "none"),
        mean_squared_error_loss(OUTPUTS[:, :1], TARGET[:, :1], "none"),
    )
    with pytest.raises(
        ValueError, match=r"target has shape \(4,\); expected the outputs' shape \(4, 3\)$"
    ):
        mean_squared_error_loss(OUTPUTS, TARGET[:, 0])


def test_compiles() -> None:
    compiled = torch.compile(mean_squared_error_loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(OUTPUTS, TARGET), mean_squared_error_loss(OUTPUTS, TARGET))
