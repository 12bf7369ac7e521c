"""Small denoisers and batches for the tests of diffusion schemes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Batch, Net, Scheme
from instil.modules.denoiser import Denoiser
from instil.modules.denoiser_call import denoiser_call
from instil.objectives.logits.denoised_matching import DenoisedMatching
from instil.teachers.frozen import Frozen

SIZE = 4
CLASSES = 3


class Small(nn.Module):
    """Two convolutions; time, class and numbers shift the channels between them."""

    def __init__(self, width: int, classes: int, scalars: tuple[str, ...] = ()):
        super().__init__()
        self.scalars = scalars
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.shift = nn.Linear(1 + len(scalars), width)
        self.classes = nn.Embedding(classes + 1, width)
        self.last = nn.Conv2d(width, 1, 3, padding=1)

    def forward(
        self, noisy: Tensor, time: Tensor, label: Tensor | None = None, **scalars: Tensor
    ) -> Tensor:
        columns = [time / 1000]
        columns += [scalars.get(name, torch.zeros_like(time)) for name in self.scalars]
        shift = self.shift(torch.stack(columns, 1))
        if label is not None:
            shift = shift + self.classes(label)
        return self.last((self.stem(noisy) + shift[:, :, None, None]).tanh())


class Constant(nn.Module):
    """Network that predicts one image, whatever it reads."""

    def __init__(self, value: float = 0.5):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, noisy: Tensor, time: Tensor) -> Tensor:
        return self.value.expand_as(noisy)


def denoiser(
    width: int = 6,
    seed: int = 0,
    num_classes: int = CLASSES,
    scalars: tuple[str, ...] = (),
    **options: Any,
) -> Net:
    """Return a denoiser with the role ``features``."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Small(width, num_classes, scalars)
        model = Denoiser(network, num_classes=num_classes, **options)
    return Net(model, denoiser_call, {"features": ["network.model.stem"]})


def constant(value: float = 0.5, **options: Any) -> Net:
    """Return an unconditional denoiser whose clean image is constant."""
    return Net(Denoiser(Constant(value), "x0", **options), denoiser_call)


def teacher(**options: Any) -> Frozen:
    """Return a fixed denoiser."""
    return Frozen(denoiser(seed=1, **options))


def matching(**options: Any) -> dict[str, DenoisedMatching]:
    return {"matching": DenoisedMatching(**options)}


def batch(step: int = 0, size: int = 16) -> Batch:
    """Return images with labels."""
    generator = torch.Generator().manual_seed(step)
    return {
        "image": torch.rand(size, 1, SIZE, SIZE, generator=generator),
        "label": torch.arange(size) % CLASSES,
        "index": torch.arange(size),
    }


def clocked(step: int = 3, progress: float = 0.5) -> Batch:
    """Return the batch of a step, with step, progress and seed."""
    clock = {"step": torch.tensor(step), "seed": torch.tensor(0)}
    return batch(step) | clock | {"progress": torch.tensor(progress)}


def prepared(scheme: Scheme) -> Scheme:
    """Prepare a scheme on a batch."""
    scheme.prepare(batch())
    return scheme


MakeScheme = Callable[[], Scheme]
