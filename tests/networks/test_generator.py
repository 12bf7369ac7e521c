import pytest
import torch

from instil.networks.generator import generator


def test_images_can_be_black_and_white() -> None:
    net = generator(1, 8, latent=4, width=2)
    with torch.no_grad():
        net.layers[-2].weight.mul_(1000)
        image = net(torch.randn(16, 4, generator=torch.Generator().manual_seed(0)))
    assert image.shape == (16, 1, 8, 8)
    assert image.min() < 0.01
    assert image.max() > 0.99


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_the_end_norm_gives_mean_0_and_standard_deviation_1(norm: str) -> None:
    net = generator(3, (5, 7), latent=4, width=2, norm=norm, end="norm")
    image = net(torch.randn(16, 4, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(image.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-4)
    assert (image.std((0, 2, 3)) - 1).abs().max() < 0.1
