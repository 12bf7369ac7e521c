"""Items that do not count are replaced before any arithmetic reads them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instil.core import Batch, Card, Objective, Objectives, Outputs
from instil.items import replace_uncounted
from instil.objectives.features.fitnet import FitNet
from instil.objectives.logits.kd import KD
from instil.weightings.entropy import Entropy


def test_a_nan_in_an_uncounted_row_reaches_neither_loss_nor_gradient() -> None:
    """The reproduction of the outside test: the loss was finite and the gradient NaN."""
    student = torch.randn(2, 3, requires_grad=True)
    teacher = torch.randn(2, 3)
    teacher[1] = torch.nan
    batch = {"x": torch.zeros(2, 1), "valid": torch.tensor([True, False])}
    objectives = Objectives({"kd": KD()})
    loss = objectives({"logits": student}, {"logits": teacher}, batch).losses["kd"]
    loss.backward()
    assert torch.isfinite(loss)
    assert student.grad is not None
    assert torch.isfinite(student.grad[0]).all()
    assert (student.grad[1] == 0).all()


def test_an_adapter_does_not_see_it() -> None:
    generator = torch.Generator().manual_seed(0)
    stage = torch.randn(4, 3, 2, 2, generator=generator)
    wide = torch.randn(4, 5, 2, 2, generator=generator)
    objectives = Objectives({"fitnet": FitNet()})
    objectives.build({"features": (stage,)}, {"features": (wide,)})
    stage[2:] = torch.inf
    wide[3] = torch.nan
    batch = {"x": torch.zeros(4, 1), "valid": torch.tensor([True, True, False, False])}
    loss = objectives({"features": (stage,)}, {"features": (wide,)}, batch).losses["fitnet"]
    loss.backward()
    gradients = [parameter.grad for parameter in objectives.parameters()]
    assert gradients
    assert all(grad is not None and torch.isfinite(grad).all() for grad in gradients)


def test_a_sample_weight_that_is_not_finite_does_not_reach_the_gradient() -> None:
    student = torch.randn(2, 3, requires_grad=True)
    teacher = torch.tensor([[1.0, 2.0, 3.0], [torch.nan, 0.0, 0.0]])
    batch = {"x": torch.zeros(2, 1), "valid": torch.tensor([True, False])}
    objectives = Objectives({"kd": KD()}, sample_weights={"kd": Entropy()})
    objectives({"logits": student}, {"logits": teacher}, batch).losses["kd"].backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


class Recorder(Objective):
    """Objective that records its outputs."""

    card = Card("recorder")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        self.seen = student["logits"]
        return student["logits"].square().mean(-1)


def test_outputs_are_the_same_tensors_where_every_item_counts() -> None:
    """No copy is made, with and without ``valid``."""
    logits = torch.randn(3, 2)
    for valid in ({}, {"valid": torch.ones(3, dtype=torch.bool)}):
        recorder = Recorder()
        Objectives({"it": recorder})({"logits": logits}, {"logits": logits}, {"x": logits} | valid)
        assert recorder.seen is logits


def test_a_replaced_row_is_a_copy_of_one_that_counts() -> None:
    value = torch.tensor([[torch.nan, 1.0], [2.0, 3.0], [4.0, torch.inf]])
    replaced = replace_uncounted(value, torch.tensor([False, True, False]))
    assert torch.equal(replaced, torch.tensor([[2.0, 3.0]] * 3))


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_positions(shape: tuple[int, ...]) -> None:
    value = torch.randn(shape)
    counted = torch.tensor([[False, True, False], [True, True, False]])
    spoiled = value.clone()
    spoiled[~counted] = torch.nan
    replaced = replace_uncounted(spoiled, counted)
    assert torch.equal(replaced[counted], value[counted])
    assert torch.equal(replaced[0, 0], value[0, 1])
    assert torch.equal(replaced[1, 2], value[0, 1])


def test_rows_of_samples_without_a_counted_position() -> None:
    value = torch.tensor([[1.0], [torch.nan]])
    replaced = replace_uncounted(value, torch.tensor([[False, True], [False, False]]))
    assert torch.equal(replaced, torch.ones(2, 1))


def test_different_finite_numbers_where_nothing_counts() -> None:
    replaced = replace_uncounted(torch.full((2, 50), torch.nan), torch.zeros(2, dtype=torch.bool))
    assert replaced.min() >= 0.25
    assert replaced.max() <= 0.75
    assert len(replaced[0].unique()) == 50
    assert torch.linalg.matrix_rank(replaced[0, :49].view(7, 7)) == 7


def test_a_replaced_row_has_no_gradient() -> None:
    value = torch.randn(2, 3, requires_grad=True)
    replace_uncounted(value, torch.tensor([True, False])).sum().backward()
    assert value.grad is not None
    assert torch.equal(value.grad, torch.tensor([[1.0] * 3, [0.0] * 3]))


def test_an_empty_batch() -> None:
    empty = torch.zeros(0, 3)
    assert replace_uncounted(empty, torch.zeros(0, dtype=torch.bool)) is empty
