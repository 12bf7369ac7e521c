"""Single-label, multi-label and binary cross-entropy against plain loops and torch."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import Objectives
from instil.objectives.labels.cross_entropy import CrossEntropy, cross_entropy_loss


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3


def surprise(logit: float, label: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -(label * math.log(p) + (1 - label) * math.log(1 - p))


def test_class_indices_agree_with_torch_for_any_leading_shape() -> None:
    logits, target = (
        randn(4, 3, 5),
        torch.tensor([[0, 1, -100], [2, 3, 4], [-100, -100, 0], [1, 1, 1]]),
    )
    flat, expected = logits.flatten(0, 1), F.cross_entropy(logits.flatten(0, 1), target.flatten())
    torch.testing.assert_close(cross_entropy_loss(logits, target), expected)
    values = cross_entropy_loss(logits, target, "none")
    assert values.shape == target.shape
    torch.testing.assert_close(
        values.flatten(), F.cross_entropy(flat, target.flatten(), reduction="none")
    )
    torch.testing.assert_close(cross_entropy_loss(logits[0, 0], target[0, 0], "none"), values[0, 0])


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_one_logit_is_binary(shape: tuple[int, ...]) -> None:
    logits, target = randn(4, 1), torch.tensor([0, 1, -100, 1])
    expected = [
        0.0 if label < 0 else surprise(logit, label)
        for (logit,), label in zip(logits.tolist(), target.tolist(), strict=True)
    ]
    values = cross_entropy_loss(logits, target.reshape(shape), "none")
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64))
    mean = cross_entropy_loss(logits, target.reshape(shape))
    torch.testing.assert_close(mean, torch.tensor(sum(expected) / 3, dtype=torch.float64))


def test_multi_label_targets_are_averaged_over_the_labelled_classes() -> None:
    logits = randn(3, 4)
    target = torch.tensor([[1, 0, -100, 1], [0, -100, -100, -100], [-100] * 4])
    expected = []
    for row, labels in zip(logits.tolist(), target.tolist(), strict=True):
        costs = [
            surprise(logit, label) for logit, label in zip(row, labels, strict=True) if label >= 0
        ]
        expected.append(sum(costs) / max(len(costs), 1))
    torch.testing.assert_close(
        cross_entropy_loss(logits, target, "none"), torch.tensor(expected, dtype=torch.float64)
    )
    torch.testing.assert_close(
        cross_entropy_loss(logits, target), torch.tensor(sum(expected) / 2, dtype=torch.float64)
    )
    torch.testing.assert_close(
        cross_entropy_loss(logits, target.float(), "none"),
        torch.tensor(expected, dtype=torch.float64),
    )


@pytest.mark.parametrize(
    "target",
    [torch.tensor([0, -100, 2]), torch.tensor([[1, -100, 0, 1], [-100] * 4, [0, 0, -100, 1]])],
)
def test_as_an_objective_unlabelled_items_do_not_count(target: Tensor) -> None:
    logits = randn(3, 4)
    update = Objectives({"cross_entropy": CrossEntropy(average="labelled")})(
        {"logits": logits}, {}, {"image": logits, "label": target}
    )
    torch.testing.assert_close(
        update.losses["cross_entropy"], cross_entropy_loss(logits, target), check_dtype=False
    )
    torch.testing.assert_close(
        update.losses["cross_entropy"],
        cross_entropy_loss(logits[[0, 2]], target[[0, 2]]),
        check_dtype=False,
    )


def test_without_any_label_the_loss_is_zero_and_differentiable() -> None:
    logits = randn(3, 4).requires_grad_()
    loss = cross_entropy_loss(logits, torch.full((3,), -100))
    assert loss == 0
    assert (torch.autograd.grad(loss, logits)[0] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("target", [torch.tensor([0, 1]), torch.tensor([[0, 1, 1], [-100, 0, 1]])])
def test_extreme_logits_stay_finite(dtype: torch.dtype, target: Tensor) -> None:
    logits = torch.tensor([[1e4, -1e4, 0], [1e4, -1e4, 1e4]], dtype=dtype).requires_grad_()
    values = cross_entropy_loss(logits, target, "none")
    assert values.dtype == torch.float32
    assert values.isfinite().all()
    assert torch.autograd.grad(values.sum(), logits)[0].isfinite().all()


def test_wrong_targets_are_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"target is torch.int64 of shape \(3,\); expected class indices .* of shape \(2,\)",
    ):
        cross_entropy_loss(torch.zeros(2, 5), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"target is torch\.float32"):
        cross_entropy_loss(torch.zeros(2, 5), torch.zeros(2))


def test_by_default_the_labelled_share_of_the_batch_is_the_weight() -> None:
    logits = randn(8, 4)
    label = torch.tensor([0, -100, 2, -100, -100, -100, -100, -100])
    batch = {"image": logits, "label": label}
    objectives = Objectives({"cross_entropy": CrossEntropy()})
    loss = objectives({"logits": logits}, {}, batch).losses["cross_entropy"]
    expected = 2 / 8 * cross_entropy_loss(logits[[0, 2]], label[[0, 2]])
    torch.testing.assert_close(loss, expected, check_dtype=False)
    assert objectives.counts(batch)["cross_entropy"].item() == 8


def test_padding_does_not_count_as_an_item_of_the_batch() -> None:
    logits = randn(4, 3)
    batch = {
        "image": logits,
        "label": torch.tensor([0, -100, 2, 1]),
        "valid": torch.tensor([True, True, False, False]),
    }
    objectives = Objectives({"cross_entropy": CrossEntropy()})
    loss = objectives({"logits": logits}, {}, batch).losses["cross_entropy"]
    expected = cross_entropy_loss(logits[:1], torch.tensor([0])) / 2
    torch.testing.assert_close(loss, expected, check_dtype=False)
