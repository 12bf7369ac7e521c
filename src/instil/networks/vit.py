"""A vision transformer (Dosovitskiy et al. 2021) for small images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.cards import NonNegativeInt, PositiveInt
from instil.networks.attention_heads import check_heads


class ViTBlock(nn.Module):
    """Attention and a two-layer perceptron, each after a layer norm and with a shortcut.

    Args:
        width: width of the tokens.
        heads: number of attention heads.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute output tokens (N, L, D) of input tokens (N, L, D)."""
        qkv = self.qkv(self.norm1(tokens)).unflatten(2, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens = tokens + self.projection(mixed)
        update: Tensor = self.mlp(self.norm2(tokens))
        return tokens + update


class ViT(nn.Module):
    """Patches and a class token with learned positions, ``stages`` of one block each, and a head.

    The head reads the class token.

    Args:
        classes: number of classes.
        channels: number of channels of the image.
        grid: number of patches.
        patch: side of a patch in pixels.
        width: width of the tokens.
        depth: number of blocks.
        heads: number of attention heads.
    """

    def __init__(
        self, classes: int, channels: int, grid: int, patch: int, width: int, depth: int, heads: int
    ):
        super().__init__()
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, grid + 1, width) * 0.02)
        self.stages = nn.ModuleList(ViTBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Compute logits (N, classes) of images (N, C, H, W)."""
        patches = self.patches(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(image), -1, -1), patches], 1) + self.position
        for stage in self.stages:
            tokens = stage(tokens)
        logits: Tensor = self.head(self.norm(tokens[:, 0]))
        return logits


def vit(
    classes: PositiveInt,
    channels: PositiveInt = 1,
    size: PositiveInt | tuple[PositiveInt, PositiveInt] = 8,
    patch: PositiveInt = 2,
    width: PositiveInt = 64,
    depth: NonNegativeInt = 4,
    heads: PositiveInt = 4,
) -> nn.Module:
    """Build a vision transformer: 202,186 parameters for 10 classes at the defaults.

    Args:
        classes: number of classes.
        channels: number of channels of the image.
        size: side, or height and width, of the image; a multiple of ``patch``.
        patch: side of a patch in pixels.
        width: width of the tokens, a multiple of ``heads``.
        depth: number of blocks.
        heads: number of attention heads.

    Raises:
        ValueError: if ``size`` or ``width`` is not such a multiple.
    """
    height, breadth = (size, size) if isinstance(size, int) else size
    if height % patch or breadth % patch:
        raise ValueError(
            f"patch: images of {height} x {breadth} pixels cannot be cut into patches of "
            f"{patch} x {patch}. Expected a divisor of both sizes"
        )
    check_heads(width, heads)
    return ViT(classes, channels, height // patch * (breadth // patch), patch, width, depth, heads)
