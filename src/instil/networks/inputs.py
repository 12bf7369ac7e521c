"""Image size and normalisation that a model expects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from instil.cards import suggestion

EXPECTED = ("size", "mean", "std")
"""Keys of the attribute ``expects`` of a model."""
GREY_TO_COLOUR = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
"""Normalisation that only makes three channels of one: there are three means."""


def input_of(model: nn.Module) -> dict[str, Any]:
    """Return the attribute ``expects`` of a model: options of the task's ``call``.

    ``build`` sets it for timm and torchvision models to the values of their weights. A user's
    builder may set it, too.

    Returns:
        ``size``, ``mean`` and ``std`` as far as they are set.

    Raises:
        ValueError: if ``expects`` has another key.
    """
    expects = getattr(model, "expects", None) or {}
    for name in expects:
        if name not in EXPECTED:
            hint = suggestion(name, EXPECTED)
            raise ValueError(f"{type(model).__name__}.expects: unknown entry '{name}'.{hint}")
    return dict(expects)


def timm_input(
    config: Mapping[str, Any], pretrained: bool, channels: int, size: int | tuple[int, int] | None
) -> dict[str, Any]:
    """Return the expected input of a timm model.

    Args:
        config: ``pretrained_cfg`` of the model.
        pretrained: whether the model has those weights. Without them, only a fixed size counts.
        channels: number of channels of the data.
        size: size option of the model; None for the one in ``config``.
    """
    expects: dict[str, Any] = {}
    if pretrained or size or config.get("fixed_input_size"):
        expects["size"] = size or tuple(config["input_size"][1:])
    if pretrained:
        for name in ("mean", "std"):
            values = tuple(config[name])
            # timm sums the weights of the first layer over colours for another number of channels.
            is_colour = channels == len(values)
            expects[name] = values if is_colour else (sum(values) / len(values),)
    return expects


def torchvision_input(transforms: Any, channels: int, size: int | None) -> dict[str, Any]:
    """Return the expected input of a torchvision model.

    Args:
        transforms: transforms of the model's weights; None without weights.
        channels: number of channels of the data.
        size: image size of a transformer; None for a convolutional network.
    """
    if transforms is not None:
        return {
            "size": transforms.crop_size[0],
            "mean": tuple(transforms.mean),
            "std": tuple(transforms.std),
        }
    expects: dict[str, Any] = {}
    if channels == 1:
        expects |= GREY_TO_COLOUR
    if size:
        expects["size"] = size
    return expects
