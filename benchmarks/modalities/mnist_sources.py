"""Data sources of rows that combine real handwritten digits with motion, edges or speech."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from instil.data.samples import TensorData
from instil.data.sources.digit_modalities import edge_strength
from instil.data.sources.moving_digits import Videos
from instil.data.splits import Splits

TRAIN_END, VALIDATION_END = 7000, 8000
"""Ends of the training and the validation rows in ``mnist10k.npz``."""
UNSEEN = (range(1000), range(1000, 3000))
"""Validation and test digits of ``unseen_clips``: training digits of ``clips``."""
UNSEEN_SEED = 10_000
"""First random seed of ``unseen_clips``; ``clips`` uses seeds below it."""
DIRECTIONS = ("right", "down", "left", "up")
DIGITS = tuple(map(str, range(10)))


def _digits(folder: str) -> tuple[Tensor, Tensor]:
    """Images (10000, 1, 28, 28) in [0, 1] and labels (10000,)."""
    with np.load(Path(folder) / "mnist10k.npz") as file:
        return torch.from_numpy(file["images"])[:, None] / 255, torch.from_numpy(file["labels"])


def _ranges(first: int, last: int) -> dict[str, range]:
    """Rows of the digits of each split."""
    return {
        "train": range(first, last),
        "validation": range(TRAIN_END, VALIDATION_END),
        "test": range(VALIDATION_END, 10_000),
    }


def clips(
    folder: str,
    first: int = 0,
    last: int = TRAIN_END,
    frames: int = 8,
    noise: float = 0.6,
    size: int = 16,
) -> Splits:
    """Clips of a digit of 10 x 10 pixels that moves in one of four directions.

    A class is a digit with its direction.

    Args:
        folder: folder of ``mnist10k.npz``.
        first: first training digit.
        last: end of the training digits.
        frames: number of frames.
        noise: standard deviation of the noise of a pixel.
        size: height and width of a frame.

    Returns:
        Train, validation and test data: one clip for each digit.
    """
    return _clips(folder, _ranges(first, last), frames, noise, size)


def unseen_clips(
    folder: str,
    first: int = 3000,
    last: int = 10_000,
    frames: int = 8,
    noise: float = 0.6,
    size: int = 16,
) -> Splits:
    """Clips like those of ``clips``, evaluated on digits that ``clips`` does not evaluate.

    All movements and all noise are drawn with other seeds.

    Args:
        folder: folder of ``mnist10k.npz``.
        first: first training digit, at least 3000.
        last: end of the training digits.
        frames: number of frames.
        noise: standard deviation of the noise of a pixel.
        size: height and width of a frame.

    Returns:
        Train, validation and test data: one clip for each digit.
    """
    validation, test = UNSEEN
    rows = {"train": range(first, last), "validation": validation, "test": test}
    return _clips(folder, rows, frames, noise, size, UNSEEN_SEED)


def _clips(
    folder: str,
    rows_of_split: dict[str, range],
    frames: int,
    noise: float,
    size: int,
    first_seed: int = 0,
) -> Splits:
    """One clip for each of these digits."""
    images, labels = _digits(folder)
    # The margin of MNIST digits is 4 pixels.
    small = F.avg_pool2d(images[:, :, 4:24, 4:24], 2)
    names = [f"{digit} {direction}" for digit in DIGITS for direction in DIRECTIONS]
    parts = {}
    for split, rows in rows_of_split.items():
        generator = torch.Generator().manual_seed(first_seed + rows.start)
        direction = torch.randint(4, (len(rows),), generator=generator)
        video = _moving(small[list(rows)], direction, frames, size, generator)
        video += noise * torch.randn(video.shape, generator=generator)
        label = labels[list(rows)] * 4 + direction
        facts = {"channels": 1, "frames": frames, "size": size}
        parts[split] = Videos({"video": video.clamp_(0, 1)}, label, names, facts)
    return Splits(parts["train"], parts["validation"], parts["test"], tuple(names), "single")


def _moving(
    images: Tensor, direction: Tensor, frames: int, size: int, generator: torch.Generator
) -> Tensor:
    """Clips (N, 1, T, size, size) of images (N, 1, H, W) that move to the border."""
    free = size - images.shape[-1]
    center = free / 2 + 2 * torch.rand(len(images), 1, 2, generator=generator) - 1
    offset = torch.linspace(-free / 2, free / 2, frames)[:, None]
    angle = direction * (math.pi / 2)
    velocity = torch.stack([angle.cos(), angle.sin()], 1)[:, None]
    corners = (center + offset * velocity).round().long().clamp(0, free)
    video = torch.zeros(len(images), 1, frames, size, size)
    for row, path in enumerate(corners.tolist()):
        for frame, (left, top) in enumerate(path):
            video[row, :, frame, top : top + images.shape[2], left : left + images.shape[3]] = (
                images[row]
            )
    return video


def modalities(folder: str, first: int = 0, last: int = TRAIN_END, noise: float = 0.5) -> Splits:
    """Noisy image and noisy edges of a digit; one of them may be missing at test.

    Samples have ``both`` (2, 14, 14) and ``partial`` (2, 14, 14). In the validation and test data a
    third of the ``partial`` samples have the image only, and a third the edges only; zeros stand
    for what is missing. In the training data ``partial`` equals ``both``.

    Args:
        folder: folder of ``mnist10k.npz``.
        first: first training digit.
        last: end of the training digits.
        noise: standard deviation of the noise of a pixel.

    Returns:
        Train, validation and test data.
    """
    images, labels = _digits(folder)
    clean = F.avg_pool2d(images, 2)
    parts = {}
    for split, rows in _ranges(first, last).items():
        generator = torch.Generator().manual_seed(rows.start)
        image = clean[list(rows)]
        both = torch.cat([image, edge_strength(image)], 1)
        both = (both + noise * torch.randn(both.shape, generator=generator)).clamp(0, 1)
        partial = both.clone()
        if split != "train":
            partial[0::3, 0] = 0
            partial[1::3, 1] = 0
        tensors = {"image": both[:, :1].contiguous(), "both": both, "partial": partial}
        facts = {"channels": 2, "size": 14}
        parts[split] = TensorData(tensors, labels[list(rows)], DIGITS, facts)
    return Splits(parts["train"], parts["validation"], parts["test"], DIGITS, "single")


def images_and_speech(
    folder: str, first: int = 0, last: int = TRAIN_END, noise: float = 0.4
) -> Splits:
    """Noisy images of digits, each with an utterance of the same class.

    Samples have ``image`` (1, 14, 14), ``audio`` (1, 20, 32), a spectrogram, and ``both``
    (2, 20, 32), with the image in the middle of the first channel. The speakers of the splits
    differ. Within a split, each image has a random utterance of its class.

    Args:
        folder: folder of ``mnist10k.npz`` and ``espeak_commands_logmel.npz``.
        first: first training digit.
        last: end of the training digits.
        noise: standard deviation of the noise of a pixel of the image.

    Returns:
        Train, validation and test data.
    """
    images, labels = _digits(folder)
    clean = F.avg_pool2d(images, 2)
    with np.load(Path(folder) / "espeak_commands_logmel.npz") as file:
        spectrograms = torch.from_numpy(file["logmel"].astype(np.float32))[:, None]
        words, part_of_row = torch.from_numpy(file["label"]), torch.from_numpy(file["split"])
    sounds = F.avg_pool2d(spectrograms, 2)
    low, high = sounds.amin(), sounds.amax()
    sounds = (sounds - low) / (high - low)
    parts = {}
    for index, (split, rows) in enumerate(_ranges(first, last).items()):
        generator = torch.Generator().manual_seed(rows.start)
        label = labels[list(rows)]
        image = clean[list(rows)]
        image = (image + noise * torch.randn(image.shape, generator=generator)).clamp(0, 1)
        draws = torch.rand(len(label), generator=generator)
        audio = torch.empty(len(label), *sounds.shape[1:])
        for digit in range(10):
            # The first ten words are the digits, in order.
            utterances = ((words == digit) & (part_of_row == index)).nonzero().flatten()
            is_digit = label == digit
            audio[is_digit] = sounds[utterances[(draws[is_digit] * len(utterances)).long()]]
        both = torch.cat([F.pad(image, (9, 9, 3, 3)), audio], 1)
        facts = {"channels": 1, "size": 14}
        tensors = {"image": image, "audio": audio, "both": both}
        parts[split] = TensorData(tensors, label, DIGITS, facts)
    return Splits(parts["train"], parts["validation"], parts["test"], DIGITS, "single")
