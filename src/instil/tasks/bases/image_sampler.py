"""Images of a diffusion model, from noise that is the same in every evaluation."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch, Net, side_effect_free
from instil.engine.cpu_offload import device_of
from instil.functional.keyed_random import stream_key
from instil.functional.pictures import encode_png, image_grid
from instil.generation.diffusion_sampler import sample_images
from instil.modules.denoiser import Denoiser
from instil.modules.noisy_sample import to_image_range

SEED = 0
"""Seed of the noise of all evaluations."""
STEPS_STREAM = "sampler.steps"
"""Random stream of the noise that the solver ``consistency`` adds between two steps."""
BATCH_SIZE = 256
"""Number of images that are generated at once."""


class ImageSampler:
    """Sampler of images in [0, 1].

    Args:
        denoiser: the model, for its schedule, solver and number of steps.
        graph: net that computes ``denoised`` in the place of the model, such as its ONNX file.
        steps: number of steps; None: that of the denoiser.
    """

    def __init__(self, denoiser: Denoiser, graph: Net | None = None, steps: int | None = None):
        self.denoiser = denoiser if graph is None else GraphDenoiser(denoiser, graph)
        self.steps = steps

    def generate(
        self, count: int, shape: tuple[int, ...], label: Tensor | None = None, seed: int = SEED
    ) -> Tensor:
        """Generate images.

        Args:
            count: number of images.
            shape: shape (C, H, W) of an image.
            label: classes (M,), which are repeated; None: no class.
            seed: seed of the noise.

        Returns:
            (N, C, H, W) in [0, 1], on the CPU.

        Raises:
            ValueError: if a value is not finite.
        """
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(count, *shape, generator=generator)
        device = device_of(self.denoiser)
        # With the seed of the first noise, a generator on the CPU would repeat that noise.
        steps_seed = (stream_key(STEPS_STREAM) + seed) % 2**63
        steps_generator = torch.Generator(device).manual_seed(steps_seed)
        classes = None if label is None else label.repeat(-(-count // len(label)))[:count]
        parts = []
        with side_effect_free(self.denoiser):
            for rows in torch.split(torch.arange(count), BATCH_SIZE):
                part = sample_images(
                    self.denoiser,
                    noise[rows].to(device),
                    None if classes is None else classes[rows].to(device),
                    steps=self.steps,
                    generator=steps_generator,
                )
                parts.append(part.float().cpu())
        images = torch.cat(parts)
        is_finite = images.flatten(1).isfinite().all(1)
        if not is_finite.all():
            raise ValueError(
                f"{int((~is_finite).sum())} of {count} generated images have values that are not "
                "finite"
            )
        return to_image_range(images)


class GraphDenoiser(Denoiser):
    """Denoiser whose forward pass is that of an exported graph.

    Args:
        denoiser: the model that was exported.
        graph: net with the inputs ``noisy``, ``time``, ``label`` and the numbers that the model
            reads, and the output ``denoised``.
    """

    def __init__(self, denoiser: Denoiser, graph: Net):
        super().__init__(
            denoiser.network.model, num_classes=denoiser.num_classes, **denoiser.options
        )
        self.graph = graph

    def forward(
        self, noisy: Tensor, time: Tensor, label: Tensor | None = None, **scalars: Tensor
    ) -> dict[str, Tensor]:
        numbers = {"time": time, **scalars}
        batch = {name: value.to(noisy.dtype).expand(len(noisy)) for name, value in numbers.items()}
        batch["noisy"] = noisy
        classes = self._classes(label, noisy)
        if classes is not None:
            batch["label"] = classes
        return dict(self.graph.model(batch))


def sample_picture(images: Tensor) -> str:
    """Images (N, C, H, W) in [0, 1] as a grid: a PNG file in base64."""
    return b64encode(encode_png(image_grid(images))).decode()


def real_images(batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Images of batches, without those whose ``valid`` is False.

    Args:
        batches: batches with ``image`` and, optionally, ``label``.

    Returns:
        Images (N, C, H, W), and their classes (N,), -100 for none.

    Raises:
        ValueError: for fewer than two images.
    """
    images: list[Tensor] = []
    labels: list[Tensor] = []
    for batch in batches:
        image = batch["image"]
        label = batch.get("label", torch.full((len(image),), UNLABELLED))
        if "valid" in batch:
            image = image[batch["valid"]]
            label = label[batch["valid"]]
        images.append(image.cpu())
        labels.append(label.cpu())
    if sum(map(len, images)) < 2:
        raise ValueError("there are fewer than two images to evaluate on")
    return torch.cat(images), torch.cat(labels)
