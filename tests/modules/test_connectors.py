from __future__ import annotations

import pytest
import torch
from torch import nn

from instil.modules.adapters import PointwiseConv
from instil.modules.connectors import BatchNorm, Norm, connector_end, convolutions, require_norm


@pytest.mark.parametrize(
    ("norm", "kinds"),
    [
        ("none", (nn.Identity, nn.Identity)),
        ("group", (nn.GroupNorm, nn.Identity)),
        ("batch", (BatchNorm,) * 2),
    ],
)
def test_each_convolution_has_its_norm_and_relu(
    norm: Norm, kinds: tuple[type[nn.Module], ...]
) -> None:
    connector = convolutions((3, 4, 5), (1, 3), norm)
    assert [type(module) for module in connector] == [
        PointwiseConv,
        kinds[0],
        nn.ReLU,
        nn.Conv2d,
        kinds[1],
        nn.ReLU,
    ]
    assert connector(torch.randn(2, 3, 6, 5)).shape == (2, 5, 6, 5)
    assert [connector[n].bias is None for n in (0, 3)] == [
        kind is not nn.Identity for kind in kinds
    ]  # a norm has a bias of its own


def test_the_end_of_the_last_convolution() -> None:
    plain, norm = (
        convolutions((3, 4), (1,), "batch", "plain"),
        convolutions((3, 4), (1,), "batch", "norm"),
    )
    assert [type(module) for module in plain] == [PointwiseConv]
    assert plain[0].bias is None
    assert [type(module) for module in norm] == [PointwiseConv, BatchNorm]


def test_how_strong_a_sample_is_survives() -> None:
    connector, image = convolutions((3, 4), (1,), "group", "norm"), torch.randn(1, 3, 4, 4)
    connector[0].bias.data.zero_()
    assert torch.allclose(connector(10 * image), 10 * connector(image), rtol=1e-5, atol=1e-5)


def test_a_relu_stands_where_the_teacher_has_one() -> None:
    assert connector_end(torch.rand(2, 3)) == "relu"
    assert connector_end(torch.rand(2, 3) - 0.5) == "norm"


def test_unknown_norms_are_refused() -> None:
    require_norm("batch", "group", "batch")
    with pytest.raises(ValueError, match=r"got 'bath'\. Did you mean batch"):
        require_norm("bath", "group", "batch")


def test_batch_norm_survives_a_batch_of_one_value_a_channel() -> None:
    norm = BatchNorm(3)
    norm.running_mean.fill_(1.0)
    image = torch.randn(1, 3, 1, 1)
    assert torch.allclose(norm(image), (image - 1) / (1 + 1e-5) ** 0.5)
    several = torch.randn(4, 3, 1, 1)
    assert torch.allclose(norm(several), nn.BatchNorm2d(3)(several))


@pytest.mark.parametrize("kernels", [(1, 1), (1, 3)])
@pytest.mark.parametrize("norm", ["none", "group", "batch"])
def test_convolutions_of_volumes_keep_the_grid(kernels: tuple[int, ...], norm: Norm) -> None:
    layers = convolutions((3, 4, 5), kernels, norm, dims=3)
    assert layers(torch.randn(2, 3, 2, 6, 5)).shape == (2, 5, 2, 6, 5)


def test_pointwise_layers_of_a_volume_equal_those_of_its_slices() -> None:
    volume = torch.randn(2, 3, 4, 5, 6)
    layer = PointwiseConv(3, 7)
    slices = [layer(volume[:, :, index]) for index in range(4)]
    torch.testing.assert_close(layer(volume), torch.stack(slices, 2))


def test_batch_norm_of_a_volume_reads_all_positions() -> None:
    volume, norm = 3 * torch.randn(2, 3, 4, 5, 6) + 1, BatchNorm(3)
    normed = norm(volume)
    torch.testing.assert_close(normed.mean((0, 2, 3, 4)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(norm.running_mean, volume.mean((0, 2, 3, 4)) / 10)
