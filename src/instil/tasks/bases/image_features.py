"""Features in which generated images are compared with real ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from instil.core import UNLABELLED
from instil.data.samples import Samples
from instil.data.splits import HOLD_OUT_SEED, balanced_order
from instil.files.atomic import atomic
from instil.files.cache import cache_folder
from instil.networks.cnn import CNN

WIDTH, STAGES, EPOCHS, BATCH_SIZE = 16, 3, 12, 64
"""Options of the classifier and of its training."""
LEARNING_RATE = 3e-3
MOST_IMAGES = 8192
"""Largest number of images that the classifier is trained on."""
PIXELS = 8
"""Largest height and width of an image whose pixels are the features."""
HASH_LENGTH = 16


class ImageFeatures:
    """Function from images to features, with a name.

    Args:
        name: description of the features, for reports.
        compute: function from images (N, C, H, W) in [0, 1] to (N, D).
    """

    def __init__(self, name: str, compute: Callable[[Tensor], Tensor]):
        self.name = name
        self._compute = compute

    def __call__(self, images: Tensor) -> Tensor:
        """Features (N, D), on the CPU."""
        with torch.no_grad():
            parts = torch.split(images.cpu().float(), 256)
            return torch.cat([self._compute(part) for part in parts])


def pixel_features() -> ImageFeatures:
    """Pixels of images that are averaged to at most 8 x 8."""

    def compute(images: Tensor) -> Tensor:
        height, width = (min(PIXELS, length) for length in images.shape[-2:])
        return F.adaptive_avg_pool2d(images, (height, width)).flatten(1)

    return ImageFeatures(f"pixels of the images, averaged to at most {PIXELS} x {PIXELS}", compute)


def classifier_features(samples: Samples) -> ImageFeatures:
    """Features of a small CNN that is trained on labelled images.

    The training is the same for every recipe with these images. Its weights are kept in the cache
    folder.

    Args:
        samples: images with one class each; those without label are left out.

    Raises:
        ValueError: for images of fewer than two classes.
    """
    rows = (samples.label != UNLABELLED).nonzero().flatten()
    if len(rows) > MOST_IMAGES:
        # Data are often sorted by class, so that the first images have few of them.
        rows = rows[balanced_order(samples.label[rows], HOLD_OUT_SEED)[:MOST_IMAGES]]
    labels = samples.label[rows]
    if len(torch.unique(labels)) < 2:
        raise ValueError(
            "features: a classifier needs images of two classes. Expected labelled images. Set "
            "task.features: pixels"
        )
    images = samples.inputs(rows)["image"]
    # The random state of the run stays as it was.
    with torch.random.fork_rng(devices=[]):
        model = CNN(len(samples.classes), images.shape[1], WIDTH, STAGES, 1, "batch")
    path = _path(images, labels)
    if path.exists():
        model.load_state_dict(load_file(path))
    else:
        _train(model, images, labels)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as temporary:
            save_file(model.state_dict(), temporary)
    model.eval()

    def compute(part: Tensor) -> Tensor:
        for stage in model.stages:
            part = stage(part)
        return part.mean((2, 3))

    accuracy = _accuracy(model, images, labels)
    name = (
        f"features of the recipe's classifier: CNN of width {WIDTH}, trained on {len(labels)} "
        f"labelled images (training accuracy {100 * accuracy:.1f} %)"
    )
    return ImageFeatures(name, compute)


def _path(images: Tensor, labels: Tensor) -> Path:
    options: dict[str, Any] = {
        "width": WIDTH,
        "stages": STAGES,
        "epochs": EPOCHS,
        "batch_size": BATCH_SIZE,
        "lr": LEARNING_RATE,
    }
    digest = hashlib.sha256(json.dumps(options).encode())
    for tensor in (images, labels):
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return cache_folder() / "classifiers" / f"{digest.hexdigest()[:HASH_LENGTH]}.safetensors"


def _train(model: CNN, images: Tensor, labels: Tensor) -> None:
    """Train with seed 0, whatever the seed of the run; the random state is restored."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, generator=generator)
        elif parameter is model.head.bias:
            nn.init.zeros_(parameter)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    steps = EPOCHS * -(-len(labels) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    with torch.enable_grad():
        for _ in range(EPOCHS):
            order = torch.randperm(len(labels), generator=generator)
            for rows in torch.split(order, BATCH_SIZE):
                # BatchNorm needs two values per channel.
                if len(rows) > 1:
                    loss = F.cross_entropy(model(images[rows]), labels[rows])
                    optimizer.zero_grad()
                    torch.autograd.backward(loss)
                    optimizer.step()
                schedule.step()


def _accuracy(model: CNN, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        parts = [model(part).argmax(1) for part in torch.split(images, 256)]
    return (torch.cat(parts) == labels).double().mean().item()
