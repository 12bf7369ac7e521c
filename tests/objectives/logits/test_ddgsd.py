"""DDGSD on batches in which samples appear once, twice or three times."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instil.functional.paired_views import paired_views
from instil.objectives.logits.ddgsd import DDGSD, ddgsd_loss, mean_discrepancy_loss
from instil.objectives.logits.kd import kd_loss


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_both_views_are_teachers_without_a_gradient() -> None:
    first, second = (
        random_tensor(3, 4).requires_grad_(),
        random_tensor(3, 4, seed=1).requires_grad_(),
    )
    loss = ddgsd_loss(first, second, 2.0)
    torch.testing.assert_close(loss, kd_loss(first, second, 2.0) + kd_loss(second, first, 2.0))
    gradient = torch.autograd.grad(loss, first)[0]
    torch.testing.assert_close(
        gradient, torch.autograd.grad(kd_loss(first, second.detach(), 2.0), first)[0]
    )


def test_only_samples_with_two_views_count_in_any_order() -> None:
    index, logits, embedding = (
        torch.tensor([4, 7, 4, 1, 7, 9]),
        random_tensor(6, 3),
        random_tensor(6, 2, seed=1),
    )
    pair_losses = [
        ddgsd_loss(logits[a : a + 1], logits[b : b + 1], 3.0) for a, b in ((0, 2), (1, 4))
    ]
    expected = torch.stack(pair_losses).mean() + 0.5 * mean_discrepancy_loss(
        embedding[[0, 1]], embedding[[2, 4]]
    )
    actual = DDGSD(discrepancy=0.5)(
        {"logits": logits, "embedding": embedding}, {}, {"index": index}
    )
    torch.testing.assert_close(actual, expected)


def test_two_of_three_rows_of_a_sample_form_a_pair() -> None:
    first, second, paired = paired_views(torch.tensor([5, 5, 5, 2, 5, 2, 5]))
    assert sorted(zip(first[paired].tolist(), second[paired].tolist(), strict=True)) == [
        (0, 1),
        (2, 4),
        (3, 5),
    ]


@pytest.mark.parametrize("index", [[0, 1, 2], [3]])
def test_is_zero_and_differentiable_without_a_second_view(index: list[int]) -> None:
    logits = random_tensor(len(index), 3).requires_grad_()
    loss = DDGSD()(
        {"logits": logits, "embedding": random_tensor(len(index), 2)},
        {},
        {"index": torch.tensor(index)},
    )
    assert loss.item() == 0
    loss.backward()
    assert not logits.grad.any()
