from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instil.balances.gradient_norm import GradientNorm


def build_balance(asymmetry: float = 0.0, **options: float) -> GradientNorm:
    balance = GradientNorm(role="embedding", asymmetry=asymmetry, **options)
    balance.build({"steep": False, "flat": False})
    return balance


def pieces(
    shared: Tensor, sizes: list[int]
) -> list[tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]]:
    counts = [dict.fromkeys(("steep", "flat"), torch.tensor(value)) for value in sizes]
    losses = [
        {"steep": 9 * part.square().mean(), "flat": part.square().mean()}
        for part in shared.split(sizes)
    ]
    return [
        (loss, count, {"embedding": shared}) for loss, count in zip(losses, counts, strict=True)
    ]


def step(balance: GradientNorm, shared: Tensor, sizes: list[int]) -> dict[str, Tensor]:
    answers = [balance(*piece) for piece in pieces(shared, sizes)]
    balance.after_step({"rows": torch.cat([rows["rows"] for _, rows in answers])})
    return answers[0][0]


def test_the_pulls_become_equal() -> None:
    balance, shared = build_balance(), torch.randn(8, 3, requires_grad=True)
    assert step(balance, shared, [8])["steep"] == 9 * shared.square().mean(), (
        "the first step is as it was"
    )
    for _ in range(600):
        step(balance, shared, [8])
    assert torch.allclose(
        balance.weights * torch.tensor([9.0, 1.0]), torch.tensor([1.8, 1.8]), atol=0.3
    )
    assert torch.isclose(balance.weights.sum(), torch.tensor(2.0))


def test_the_first_step_is_equation_2() -> None:
    """d|w G - target| / dw = sign(w G - target) G, here in units of the mean pull; then the sum is
    2 again.
    """
    balance, shared = build_balance(rate=0.1), torch.randn(8, 3, requires_grad=True)
    step(balance, shared, [8])
    moved = torch.tensor([1 - 0.1 * 9 / 5, 1 + 0.1 * 1 / 5])
    assert torch.allclose(balance.weights, moved * 2 / moved.sum())


def test_what_lags_behind_pulls_harder() -> None:
    shared = torch.randn(8, 3, requires_grad=True)
    eager, even = build_balance(asymmetry=2.0), build_balance()
    for balance in (eager, even):
        step(balance, shared, [8])
        balance.first = balance.first * torch.tensor(
            [1.0, 10.0]
        )  # the flat loss has fallen to a tenth
        for _ in range(100):
            step(balance, shared, [8])
    assert eager.weights[0] > even.weights[0]


def test_the_cut_of_the_batch_changes_nothing() -> None:
    shared = torch.randn(8, 3, requires_grad=True)
    whole, cut = build_balance(asymmetry=1.5), build_balance(asymmetry=1.5)
    for _ in range(3):
        step(whole, shared, [8])
        step(cut, shared, [1, 5, 2])
    assert torch.allclose(whole.weights, cut.weights, atol=1e-6)


def test_a_role_that_a_loss_does_not_depend_on() -> None:
    balance, shared = build_balance(), torch.randn(2, 3, requires_grad=True)
    losses = {"steep": shared.sum(), "flat": torch.ones(1, requires_grad=True).sum()}
    with pytest.raises(ValueError, match=r"objectives\.flat does not depend on 'embedding'"):
        balance(losses, {"steep": torch.tensor(2), "flat": torch.tensor(2)}, {"embedding": shared})
    with pytest.raises(ValueError, match="the student gives no 'embedding', but logits"):
        balance(losses, {}, {"logits": shared})
