"""Pairs of noise and the image that the teacher's sampler makes of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from instil.core import Batch
from instil.functional.diffusion.noise_schedule import NoiseSchedule
from instil.functional.keyed_random import keyed_index, stream_key
from instil.generation.diffusion_sampler import solve
from instil.schemes.bases.diffusion import DiffusionScheme

NOISE_STREAM = "scheme.pairs.noise"
"""Random stream of the noise and the classes of the pairs."""
CHUNK = 256
"""Number of images that the teacher samples at once."""


class Pair(NamedTuple):
    """Standard normal noise and images (N, ...), and classes (N,), None without classes."""

    noise: Tensor
    image: Tensor
    label: Tensor | None


class OdePairs(nn.Module):
    """Recorded pairs of noise and image, sampled before the first step.

    The pairs depend on the seed of the training only. They are part of a checkpoint.

    Args:
        scheme: the scheme, whose teacher samples the images.
        num_pairs: number of pairs.
        steps: number of steps of the teacher's sampler; None: its own.
        solver: solver of the teacher's sampler; None: its own.

    Raises:
        ValueError: for a random solver.
    """

    noise: Tensor
    image: Tensor
    label: Tensor
    num_filled: Tensor

    def __init__(
        self, scheme: DiffusionScheme, num_pairs: int, steps: int | None, solver: str | None
    ):
        super().__init__()
        self.num_pairs = num_pairs
        self.num_classes = scheme.student_denoiser.num_classes
        self.steps = steps or scheme.teacher_denoiser.steps
        self.solver = solver or scheme.teacher_denoiser.solver
        if self.solver == "consistency":
            raise ValueError(
                "scheme.pair_solver: the solver consistency adds noise, so an image does not "
                "depend on its first noise alone. Expected ddim, euler, heun or dpm_solver"
            )

    def allocate(self, image: Tensor) -> None:
        """Allocate pairs without values, for images of the shape of ``image`` (N, C, H, W)."""
        self.register_buffer("noise", image.new_zeros(self.num_pairs, *image.shape[1:]))
        self.register_buffer("image", torch.zeros_like(self.noise))
        label = torch.zeros(self.num_pairs, dtype=torch.int64, device=image.device)
        self.register_buffer("label", label)
        self.register_buffer("num_filled", torch.tensor(0, device=image.device))

    @torch.no_grad()
    def fill(self, scheme: DiffusionScheme, batch: Batch) -> None:
        """Sample the pairs, unless they were sampled before.

        Args:
            scheme: the scheme, whose teacher samples.
            batch: batch of the step, with the seed of the training.
        """
        if self.num_filled:
            return
        # A stream of its own: the images of an evaluation begin with the noise of a plain seed, and
        # would be training data.
        seed = (stream_key(NOISE_STREAM) + int(batch.get("seed", 0))) % 2**63
        # Drawn on the CPU, so that all devices have the same pairs.
        generator = torch.Generator().manual_seed(seed)
        self.noise.copy_(torch.randn(self.noise.shape, generator=generator))
        if self.num_classes:
            self.label.copy_(torch.randint(self.num_classes, self.label.shape, generator=generator))
        for start in range(0, self.num_pairs, CHUNK):
            rows = slice(start, start + CHUNK)
            label = self.label[rows] if self.num_classes else None
            self.image[rows] = self._sample(scheme, self.noise[rows], label)
        self.num_filled.fill_(self.num_pairs)

    def _sample(self, scheme: DiffusionScheme, noise: Tensor, label: Tensor | None) -> Tensor:
        """Images of the teacher's sampler."""

        def denoise(noisy: Tensor, time: Tensor, end_time: Tensor) -> Tensor:
            return scheme.teacher_denoised(noisy, time.expand(len(noisy)), label)

        noisy = noise_start(scheme.schedule, noise)[0]
        return solve(denoise, scheme.schedule, noisy, scheme.schedule.grid(self.steps), self.solver)

    def draw(self, batch: Batch) -> Pair:
        """Return a random pair for each sample of a batch."""
        rows = keyed_index(batch, self.num_pairs, "scheme.pairs")
        label = self.label[rows] if self.num_classes else None
        return Pair(self.noise[rows], self.image[rows], label)


def noise_start(schedule: NoiseSchedule, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Noisy images and times (N,) at which a sampler starts from standard normal noise."""
    time = torch.full_like(noise.flatten(1)[:, 0], schedule.max_time)
    return schedule.coefficients(time, noise)[1] * noise, time
