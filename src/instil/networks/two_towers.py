"""An image net and a text net that end in one space (after CLIP, Radford et al. 2021)."""

from __future__ import annotations

from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.networks.cnn import cnn
from instil.networks.text_transformer import text_transformer

START, LARGEST = log(1 / 0.07), log(100.0)
"""Of the logarithm of the scale, as in section 2.5 of the paper."""


class TwoTowers(nn.Module):
    """``image`` and ``text``, each with the embedding as its logits; embeddings come with length 1. Answers as transformers' CLIP does."""

    def __init__(self, image: nn.Module, text: nn.Module):
        super().__init__()
        self.image, self.text = image, text
        self.logit_scale = nn.Parameter(torch.full((1,), START))

    def forward(
        self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        return {
            "image_embedding": F.normalize(self.image(pixel_values), dim=-1),
            "text_embedding": F.normalize(self.text(input_ids, attention_mask)["logits"], dim=-1),
            "logit_scale": self.logit_scale.clamp(max=LARGEST).exp(),
        }


def two_towers(
    vocabulary: int,
    length: int = 16,
    channels: int = 3,
    dimension: int = 32,
    width: int = 16,
    stages: int = 3,
    text_width: int = 32,
    text_depth: int = 1,
) -> nn.Module:
    """40,913 parameters for 25 tokens of 16 at most, at the defaults: a ``cnn`` of ``width`` and a ``text_transformer`` of ``text_width``."""
    return TwoTowers(
        cnn(dimension, channels, width, stages),
        text_transformer(dimension, vocabulary, length, text_width, text_depth, 2 - text_width % 2),
    )
