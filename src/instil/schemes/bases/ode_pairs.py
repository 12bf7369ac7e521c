"""Pairs of noise and the image that the teacher's sampler makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from instil.core import Batch
from instil.functional.keyed_random import keyed_uniform

CHUNK = 256
"""Number of images that the teacher samples at once."""
Sample = Callable[[Tensor, "Tensor | None"], Tensor]
"""``(standard normal noise (N, ...), classes (N,) or None) -> images (N, ...)``."""


class Pair(NamedTuple):
    """Standard normal noise and images (N, ...), and classes (N,), None without classes."""

    noise: Tensor
    image: Tensor
    label: Tensor | None


class OdePairs(nn.Module):
    """Recorded pairs of noise and image, sampled before the first step.

    The pairs depend on the seed of the training only. They are part of a checkpoint.

    Args:
        image: example of the images (N, C, H, W).
        num_pairs: number of pairs.
        num_classes: number of classes; 0: pairs without a class.
    """

    noise: Tensor
    image: Tensor
    label: Tensor
    num_filled: Tensor

    def __init__(self, image: Tensor, num_pairs: int, num_classes: int):
        super().__init__()
        self.num_classes = num_classes
        self.register_buffer("noise", image.new_zeros(num_pairs, *image.shape[1:]))
        self.register_buffer("image", torch.zeros_like(self.noise))
        label = torch.zeros(num_pairs, dtype=torch.int64, device=image.device)
        self.register_buffer("label", label)
        self.register_buffer("num_filled", torch.tensor(0, device=image.device))

    @torch.no_grad()
    def fill(self, sample: Sample, seed: int) -> None:
        """Sample the pairs, unless they were sampled before.

        Args:
            sample: sampler of the teacher.
            seed: seed of the noise and the classes.
        """
        if self.num_filled:
            return
        # Drawn on the CPU, so that all devices have the same pairs.
        generator = torch.Generator().manual_seed(seed)
        self.noise.copy_(torch.randn(self.noise.shape, generator=generator))
        if self.num_classes:
            self.label.copy_(torch.randint(self.num_classes, self.label.shape, generator=generator))
        for start in range(0, len(self.noise), CHUNK):
            rows = slice(start, start + CHUNK)
            label = self.label[rows] if self.num_classes else None
            self.image[rows] = sample(self.noise[rows], label)
        self.num_filled.fill_(len(self.noise))

    def draw(self, batch: Batch, stream: str) -> Pair:
        """Return a random pair for each sample of a batch.

        Args:
            batch: batch of the step.
            stream: name of the random stream.
        """
        uniforms = keyed_uniform(batch, 1, stream)[:, 0]
        # Rounding may reach the number of pairs itself.
        rows = (uniforms * len(self.noise)).long().clamp_max(len(self.noise) - 1)
        label = self.label[rows] if self.num_classes else None
        return Pair(self.noise[rows], self.image[rows], label)
