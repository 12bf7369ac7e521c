"""Image classification: one class, several classes or a yes-or-no decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Batch, Card, Outputs
from instil.tasks.bases.classes import ClassTask
from instil.tasks.bases.main_output import outputs_by_role
from instil.tasks.bases.own_labels import label_arguments

ROLES = ("logits", "hidden_states", "attentions", "features", "embedding", "loss")
"""Outputs by name that are used."""


def call(
    model: nn.Module,
    batch: Batch,
    size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pass_labels: bool = False,
) -> Outputs:
    """Compute the outputs of an image classifier.

    Args:
        model: a model that maps images to logits, as a tensor or by name.
        batch: ``image`` (N, C, H, W) in [0, 1]; it is resized (bilinear, antialiased) and
            normalised for this model.
        size: side, or height and width, of the model's images; None for no resizing.
        mean: mean of each channel. Grey images become colour images for three values.
        std: standard deviation of each channel.
        pass_labels: whether a model with the parameter ``labels`` receives them in train mode, and
            computes its own ``loss``.

    Returns:
        ``logits`` (N, C); of a transformers model also ``hidden_states`` and, if its configuration
        enables them, ``attentions``, and ``embedding`` (N, D) if it has no head but a pooled
        output. A model that returns ``features``, ``embedding`` or ``loss`` by name has these roles
        too.
    """
    labels = label_arguments(model, batch) if pass_labels else {}
    image = preprocess(batch["image"], size, mean, std)
    result = model(image, **forward_kwargs(model), **labels)
    return pooled_embedding(result) | outputs_by_role(result, ROLES)


def pooled_embedding(result: Any) -> Outputs:
    """Return ``embedding`` (N, D) of a transformers model of images without a head, if it has one.

    Args:
        result: result of a model.
    """
    pooled = result.get("pooler_output") if isinstance(result, Mapping) else None
    return {"embedding": pooled.flatten(1)} if isinstance(pooled, Tensor) else {}


def preprocess(
    image: Tensor,
    size: int | tuple[int, int] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Tensor:
    """Resize and normalise images.

    Args:
        image: (N, C, H, W).
        size: side, or height and width; None for no resizing.
        mean: subtracted from each channel; None for 0.
        std: divisor of each channel; None for 1.

    Returns:
        (N, D, h, w), with D = C, or more if C = 1 and there are several means.
    """
    if size is not None:
        shape = (size, size) if isinstance(size, int) else tuple(size)
        # Images of the right size stay exact, as in the training of the model.
        if image.shape[-2:] != shape:
            image = F.interpolate(image, shape, mode="bilinear", antialias=True)
    if mean is not None:
        image = image - image.new_tensor(mean)[:, None, None]
    if std is not None:
        image = image / image.new_tensor(std)[:, None, None]
    return image


def pixels_in_unit_range(pixels: Tensor, noun: str = "images") -> Tensor:
    """Return pixels as float32 in [0, 1].

    Args:
        pixels: any shape, uint8 or floating point in [0, 1].
        noun: name of the input, for the message.

    Raises:
        ValueError: if type or range differ.
    """
    if pixels.dtype == torch.uint8:
        pixels = pixels.float() / 255
    # The comparison is negated, so that NaN is refused too.
    is_outside = pixels.numel() > 0 and not (pixels.min() >= 0 and pixels.max() <= 1)
    if not pixels.is_floating_point() or is_outside:
        dtype = str(pixels.dtype).removeprefix("torch.")
        raise ValueError(
            f"{noun} must be uint8, or floating point in [0, 1], not {dtype} outside of it"
        )
    return pixels.float()


def check_images(images: Tensor, channels: int) -> Tensor:
    """Return images as float32 in [0, 1].

    Args:
        images: (N, C, H, W), uint8 or floating point in [0, 1].
        channels: expected number of channels.

    Raises:
        ValueError: if shape, type or range differ.
    """
    if images.ndim != 4 or images.shape[1] != channels:
        raise ValueError(
            f"images must have the shape (N, {channels}, H, W), not {tuple(images.shape)}"
        )
    return pixels_in_unit_range(images)


def forward_kwargs(model: nn.Module) -> dict[str, bool]:
    """Return the arguments that make a transformers model return its hidden states."""
    is_transformers = hasattr(getattr(model, "config", None), "model_type")
    return {"output_hidden_states": True} if is_transformers else {}


def resized_images(batch: Batch, shape: Sequence[int]) -> Batch:
    """Return a batch whose images have the shape (C, H, W) of those in training."""
    images = check_images(batch["image"], shape[0])
    return batch | {"image": preprocess(images, (shape[1], shape[2]), None, None)}


class Classification(ClassTask):
    """Image classification.

    Labels are int64 (N,) for ``single``, float (N, C) for ``multi``, float (N, 1) for ``binary``;
    -100 for no label.

    Args:
        kind: kind of the labels: ``single``, ``multi`` or ``binary``.
    """

    card = Card("Image classification")
    title = "classification"
    names = ("image", "label")
    inputs = ("image",)
    call = staticmethod(call)

    def to_batch(self, inputs: Tensor | Mapping[str, Tensor], shape: Sequence[int]) -> Batch:
        """Return images (N, C, H, W), uint8 or float in [0, 1], in the size of training."""
        return resized_images(super().to_batch(inputs, shape), shape)
