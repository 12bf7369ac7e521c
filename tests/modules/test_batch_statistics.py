from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from instil.modules.batch_statistics import (
    BatchNormStatistics,
    bn_statistics_loss,
    channel_moments,
    record_statistics,
)


def normed() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12, 5),
        nn.BatchNorm1d(5),
    ).eval()
    for part in network.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return network


def test_inputs_of_every_batch_norm_by_numpy() -> None:
    net, image = normed(), torch.randn(6, 2, 4, 4)
    with record_statistics(net) as read:
        net(image)
    inputs = [net[0](image), net[:5](image)[:, :, None, None]]
    expected = 0.0
    for index, (one, values) in enumerate(zip(read, inputs, strict=True)):
        values = values.detach().double().numpy()
        mean, variance = values.mean((0, 2, 3)), values.var((0, 2, 3))
        assert np.allclose(one.mean.detach(), mean, atol=1e-5)
        assert np.allclose(one.variance.detach(), variance, atol=1e-5)
        assert np.allclose(one.each.detach(), values.mean((2, 3)), atol=1e-5)
        apart = np.linalg.norm(mean - one.running_mean.numpy()) + np.linalg.norm(
            variance - one.running_variance.numpy()
        )
        expected += (10 if index == 0 else 1) * apart
    assert float(bn_statistics_loss(read, 10.0).detach()) == pytest.approx(expected, rel=1e-5)


def test_the_hooks_go_with_the_context_and_nothing_of_the_net_moves() -> None:
    net, image = normed(), torch.randn(6, 2, 4, 4)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(RuntimeError), record_statistics(net) as read:
        net(image.flatten(1))
    with record_statistics(net) as read:
        net(image)
    net(image)
    assert len(read) == 2
    assert not any(part._forward_pre_hooks for part in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_sample_that_does_not_count_changes_nothing() -> None:
    values, weight = torch.randn(6, 3, 2, 2), torch.tensor([1.0, 1, 1, 1, 0, 0])
    for weighed, alone in zip(
        channel_moments(values, weight), channel_moments(values[:4]), strict=True
    ):
        assert torch.allclose(weighed, alone, atol=1e-6)


def test_at_the_statistics_themselves_the_loss_is_zero_and_so_is_its_gradient() -> None:
    values = torch.randn(6, 3, requires_grad=True)
    mean, variance = channel_moments(values)
    loss = bn_statistics_loss(
        [BatchNormStatistics(mean, variance, mean.detach(), variance.detach(), values)]
    )
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.equal(values.grad, torch.zeros_like(values))


def test_a_net_without_batch_norm_is_refused() -> None:
    with record_statistics(nn.Linear(2, 2)) as read:
        pass
    with pytest.raises(ValueError, match="no BatchNorm"):
        bn_statistics_loss(read)
