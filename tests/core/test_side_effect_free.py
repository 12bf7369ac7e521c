"""A dry run changes no state outside."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from instil.core import side_effect_free


def test_modes_random_state_and_gradients_are_as_before() -> None:
    module = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2)))
    module[1][0].eval()
    modes, state = [part.training for part in module.modules()], torch.get_rng_state()
    statistics = module[1][0].running_mean.clone()
    with side_effect_free(module):
        assert not any(part.training for part in module.modules())
        assert not torch.is_grad_enabled()
        module(torch.randn(3, 2))
    assert [part.training for part in module.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(module[1][0].running_mean, statistics)
    assert torch.is_grad_enabled()


def test_also_where_it_fails() -> None:
    module = nn.Dropout()
    state = torch.get_rng_state()

    def stop() -> None:
        torch.randn(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), side_effect_free(module):
        stop()
    assert module.training
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
