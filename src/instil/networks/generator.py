"""A small generator of images from random codes, as in the papers on data-free distillation."""

from __future__ import annotations

from math import ceil

from torch import Tensor, nn

from instil.cards import PositiveInt


class Generator(nn.Module):
    """Linear layer to a map of a quarter of the size, then upsampling and convolution, twice.

    Args:
        latent: width of the codes.
        channels: number of channels of the image.
        size: height and width of the image.
        width: channels before the last convolution.
        norm: whether BatchNorm is used.
        end: last layer.
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
            _norm_layer(2 * width, norm),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            _norm_layer(2 * width, norm),
            nn.LeakyReLU(0.2),
            nn.Upsample(size=size),
            nn.Conv2d(2 * width, width, 3, padding=1),
            _norm_layer(width, norm),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, channels, 3, padding=1),
            end,
        )

    def forward(self, latent: Tensor) -> Tensor:
        """Compute images (N, C, H, W) of codes (N, latent)."""
        image: Tensor = self.layers(self.first(latent).view(-1, *self.start))
        return image


def _norm_layer(width: int, norm: bool) -> nn.Module:
    return nn.BatchNorm2d(width) if norm else nn.Identity()


def generator(
    channels: PositiveInt,
    size: PositiveInt | tuple[PositiveInt, PositiveInt],
    latent: PositiveInt = 100,
    width: PositiveInt = 64,
    norm: str = "batch",
    end: str = "sigmoid",
) -> nn.Module:
    """Build a generator: 298,689 parameters at the defaults for grey images of 8 x 8.

    Args:
        channels: number of channels of the image.
        size: side, or height and width, of the image; at least 4.
        latent: width of the codes.
        width: channels before the last convolution.
        norm: ``batch`` or ``none``.
        end: ``sigmoid`` for images in [0, 1]; ``norm`` for a last BatchNorm, which gives images of
            mean 0 and standard deviation 1, for teachers that read normalised images.

    Raises:
        ValueError: if ``norm`` or ``end`` is unknown.
    """
    if norm not in ("batch", "none"):
        raise ValueError(f"norm must be batch or none, not '{norm}'")
    if end not in ("sigmoid", "norm"):
        raise ValueError(f"end must be sigmoid or norm, not '{end}'")
    height, breadth = (size, size) if isinstance(size, int) else tuple(size)
    # BatchNorm before a sigmoid would keep images from black and white, so it replaces the sigmoid.
    last = nn.Sigmoid() if end == "sigmoid" else nn.BatchNorm2d(channels, affine=False)
    return Generator(latent, channels, (height, breadth), width, norm == "batch", last)
