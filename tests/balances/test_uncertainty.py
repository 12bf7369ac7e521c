from __future__ import annotations

import torch

from instil.balances.uncertainty import Uncertainty


def test_weights_settle_at_one_over_the_loss() -> None:
    """exp(-s) L + s / 2 has its minimum at exp(-s) = 1 / (2 L)."""
    balance = Uncertainty()
    balance.build({"a": False, "b": True})
    losses = {"a": torch.tensor(0.1), "b": torch.tensor(4.0)}
    optimizer = torch.optim.Adam(balance.parameters(), 0.1)
    for _ in range(400):
        optimizer.zero_grad()
        balanced, rows = balance(losses, {}, {})
        sum(balanced.values()).backward()
        optimizer.step()
    assert rows == {}
    weights = [balance.log_variance[name].neg().exp().item() for name in losses]
    assert torch.allclose(torch.tensor(weights), torch.tensor([5.0, 0.125]), rtol=1e-2)


def test_starts_with_the_losses_as_they_are() -> None:
    balance = Uncertainty()
    balance.build({"a": False})
    assert balance({"a": torch.tensor(3.0)}, {}, {})[0]["a"] == 3.0
