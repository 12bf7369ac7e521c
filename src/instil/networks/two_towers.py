"""An image and a text network with one embedding space (after CLIP, Radford et al. 2021)."""

from __future__ import annotations

from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.cards import NonNegativeInt, PositiveInt
from instil.networks.cnn import cnn
from instil.networks.text_transformer import text_transformer

INITIAL_LOG_SCALE = log(1 / 0.07)
"""Initial logarithm of the logit scale (section 2.5 of the paper)."""
LARGEST_LOG_SCALE = log(100.0)
"""Largest logarithm of the logit scale (section 2.5 of the paper)."""


class TwoTowers(nn.Module):
    """Image and text network; their logits are the embeddings, which are scaled to length 1.

    The model is called like CLIP of transformers.

    Args:
        image: maps images to (N, D).
        text: maps ``input_ids`` and ``attention_mask`` to ``logits`` (N, D).
    """

    def __init__(self, image: nn.Module, text: nn.Module):
        super().__init__()
        self.image = image
        self.text = text
        self.logit_scale = nn.Parameter(torch.full((1,), INITIAL_LOG_SCALE))

    def forward(
        self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute ``image_embedding``, ``text_embedding`` (N, D) and ``logit_scale`` (1,).

        Args:
            input_ids: (N, L).
            pixel_values: (N, C, H, W).
            attention_mask: (N, L), 0 for padding.
        """
        return {
            "image_embedding": F.normalize(self.image(pixel_values), dim=-1),
            "text_embedding": F.normalize(self.text(input_ids, attention_mask)["logits"], dim=-1),
            "logit_scale": self.logit_scale.clamp(max=LARGEST_LOG_SCALE).exp(),
        }


def two_towers(
    vocabulary: PositiveInt,
    length: PositiveInt = 16,
    channels: PositiveInt = 3,
    dimension: PositiveInt = 32,
    width: PositiveInt = 16,
    stages: PositiveInt = 3,
    text_width: PositiveInt = 32,
    text_depth: NonNegativeInt = 1,
) -> nn.Module:
    """Build a ``cnn`` and a ``text_transformer`` with one embedding space.

    They have 40,913 parameters for 25 tokens at the defaults.

    Args:
        vocabulary: number of tokens.
        length: largest number of tokens per text.
        channels: number of channels of the image.
        dimension: width of the embeddings.
        width: width of the first stage of the image network.
        stages: number of stages of the image network.
        text_width: width of the text network.
        text_depth: number of blocks of the text network.
    """
    # Two heads where the width is even, else one.
    heads = 2 - text_width % 2
    return TwoTowers(
        cnn(dimension, channels, width, stages),
        text_transformer(dimension, vocabulary, length, text_width, text_depth, heads),
    )
