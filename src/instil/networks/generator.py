"""From a random code to an image: the small generator of data-free papers."""

from __future__ import annotations

from math import ceil

from torch import Tensor, nn


class Generator(nn.Module):
    """A linear layer to a map of a quarter of the size, then two times: doubled, convolved; at last a convolution to the image's channels.

    ``latent``: the width of the codes (N, latent) that it takes; it gives images (N, C, H, W).
    """

    def __init__(
        self,
        latent: int,
        channels: int,
        size: tuple[int, int],
        width: int,
        norm: bool,
        end: nn.Module,
    ):
        super().__init__()
        self.latent = latent
        self.start = (2 * width, *(ceil(length / 4) for length in size))
        self.first = nn.Linear(latent, self.start[0] * self.start[1] * self.start[2])
        self.layers = nn.Sequential(
            _normed(2 * width, norm),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            _normed(2 * width, norm),
            nn.LeakyReLU(0.2),
            nn.Upsample(size=size),
            nn.Conv2d(2 * width, width, 3, padding=1),
            _normed(width, norm),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, channels, 3, padding=1),
            end,
        )

    def forward(self, latent: Tensor) -> Tensor:
        image: Tensor = self.layers(self.first(latent).view(-1, *self.start))
        return image


def _normed(width: int, norm: bool) -> nn.Module:
    return nn.BatchNorm2d(width) if norm else nn.Identity()


def generator(
    channels: int,
    size: int | tuple[int, int],
    latent: int = 100,
    width: int = 64,
    norm: str = "batch",
    end: str = "sigmoid",
) -> nn.Module:
    """298,689 parameters at the defaults for grey images of 8 x 8; ``size`` is a number or (H, W), at least 4.

    ``norm``: ``batch`` or ``none``. ``end``: ``sigmoid`` gives images in [0, 1]; ``norm`` a last BatchNorm, which leaves them of mean 0 and
    deviation 1, for teachers that take no other.
    """
    if norm not in ("batch", "none"):
        raise ValueError(f"norm must be batch or none, not '{norm}'")
    if end not in ("sigmoid", "norm"):
        raise ValueError(f"end must be sigmoid or norm, not '{end}'")
    height, breadth = (size, size) if isinstance(size, int) else tuple(size)
    last = (
        nn.Sigmoid() if end == "sigmoid" else nn.BatchNorm2d(channels, affine=False)
    )  # before a sigmoid, it would keep images from black and white
    return Generator(latent, channels, (height, breadth), width, norm == "batch", last)
