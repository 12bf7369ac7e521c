"""Images of two domains: drawings of emoji and handwritten digits, in 16 x 16 pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.data.images import ArrayData
from instil.data.splits import Splits

DOMAINS = ("emoji", "digits")
DIGIT_ENDS = (7000, 8000, 10_000)
"""Ends of the training, validation and test rows of the digits."""
NUM_EVALUATED = 500
"""Number of validation and of test images of each domain in the mixture."""
Part = tuple[Tensor, Tensor]
"""Images (N, 3, 16, 16) in [0, 1], and classes (N,)."""


def one_domain(
    folder: Annotated[str, Doc("folder of the data sets")],
    domain: Annotated[str, Doc("emoji or digits")],
) -> Splits:
    """All images of one domain, with their classes."""
    parts, names = _load(Path(folder), domain)
    data = [ArrayData(image, label, names) for image, label in parts]
    return Splits(*data, tuple(names), "single")


def mixture(
    folder: Annotated[str, Doc("folder of the data sets")],
    size: Annotated[int, Ge(1), Doc("number of training images of each domain")] = 600,
) -> Splits:
    """Images of both domains; a class is one of the 9 groups of emoji or of the 10 digits."""
    joined: list[list[Part]] = [[], [], []]
    names: list[str] = []
    for domain in DOMAINS:
        parts, own_names = _load(Path(folder), domain)
        for index, (image, label) in enumerate(parts):
            order = torch.randperm(len(label), generator=torch.Generator().manual_seed(index))
            rows = order[: NUM_EVALUATED if index else size]
            joined[index].append((image[rows], label[rows] + len(names)))
        names += [f"{domain}: {own}" for own in own_names]
    data = []
    for domains in joined:
        images, labels = zip(*domains, strict=True)
        data.append(ArrayData(torch.cat(images), torch.cat(labels), names))
    return Splits(*data, tuple(names), "single")


def _load(folder: Path, domain: str) -> tuple[list[Part], list[str]]:
    """Train, validation and test images of a domain, and the names of its classes."""
    return _emoji(folder) if domain == "emoji" else _digits(folder)


def _emoji(folder: Path) -> tuple[list[Part], list[str]]:
    with np.load(folder / "emoji.npz") as file:
        images = torch.from_numpy(file["images"]).permute(0, 1, 4, 2, 3)
        group, split = torch.from_numpy(file["group"]), torch.from_numpy(file["split"])
        names = list(map(str, file["groups"]))
    parts = []
    for index in range(3):
        rows = split == index
        label = group[rows].repeat_interleave(images.shape[1])
        parts.append((_small(images[rows].flatten(0, 1)), label))
    return parts, names


def _digits(folder: Path) -> tuple[list[Part], list[str]]:
    with np.load(folder / "mnist10k.npz") as file:
        images, labels = torch.from_numpy(file["images"]), torch.from_numpy(file["labels"])
    images = F.pad(images, (2, 2, 2, 2))[:, None].expand(-1, 3, -1, -1)
    starts = (0, *DIGIT_ENDS[:-1])
    parts = [(_small(images[a:b]), labels[a:b]) for a, b in zip(starts, DIGIT_ENDS, strict=True)]
    return parts, list("0123456789")


def _small(images: Tensor) -> Tensor:
    """Images of half the size, in [0, 1]."""
    return F.avg_pool2d(images.float() / 255, 2)
