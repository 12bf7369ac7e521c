"""Image size and normalisation that a model expects."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from instil.cards import suggestion

EXPECTED = ("size", "mean", "std")
"""Keys of the attribute ``expects`` of a model."""
GREY_TO_COLOUR = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
"""Normalisation that only makes three channels of one: there are three means."""

IMAGE_ENTRIES = ("vision_config", "num_channels", "backbone_config")
"""Entries of a configuration of transformers that only models of images have."""


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


def call_options(model: nn.Module, call: Callable[..., Any]) -> dict[str, Any]:
    """Return those entries of ``input_of`` that the call of a task reads.

    Tasks without such options get inputs that the processor of a model has prepared.

    Args:
        model: the model.
        call: ``(model, batch, ...) -> outputs``.
    """
    parameters = inspect.signature(call).parameters
    return {name: value for name, value in input_of(model).items() if name in parameters}


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


def transformers_input(transformers: Any, config: Any, path: str | None) -> dict[str, Any]:
    """Return the expected input of a transformers model of images.

    Args:
        transformers: the library.
        config: configuration of the model. Its size counts, if it fixes one.
        path: folder with the weights and the image processor of the model, or its name on the hub;
            None for a model without these weights.
    """
    size = getattr(config, "image_size", None)
    expects: dict[str, Any] = {}
    if size:
        expects["size"] = tuple(size) if isinstance(size, (list, tuple)) else size
    reads_images = size or any(hasattr(config, name) for name in IMAGE_ENTRIES)
    if path is None or not reads_images:
        return expects
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(path)
    except (OSError, ValueError, ImportError):
        # A folder of weights alone, or with the processor of another kind of data.
        return expects
    return expects | _processor_statistics(processor)


def _processor_statistics(processor: Any) -> dict[str, tuple[float, ...]]:
    """Mean and standard deviation of an image processor, for pixels in [0, 1]."""
    statistics = {"mean": "image_mean", "std": "image_std"}
    values = {option: getattr(processor, name, None) for option, name in statistics.items()}
    if not getattr(processor, "do_normalize", False):
        return {}
    # Pixels are whole numbers up to 255 before the processor multiplies them by its factor.
    scale = 255 * (processor.rescale_factor if getattr(processor, "do_rescale", True) else 1)
    return {
        option: tuple(value / scale for value in numbers)
        for option, numbers in values.items()
        if numbers is not None
    }


def torchvision_input(transforms: Any, channels: int, size: int | None) -> dict[str, Any]:
    """Return the expected input of a torchvision model.

    Args:
        transforms: transforms of the model's weights; None without weights.
        channels: number of channels of the data.
        size: image size of a transformer; None for a convolutional network.
    """
    if transforms is not None:
        statistics = {"mean": tuple(transforms.mean), "std": tuple(transforms.std)}
        # Transforms of segmentation and of video keep the size or have none that fits the data.
        sides: Sequence[int] = getattr(transforms, "crop_size", ())
        return ({"size": sides[0]} if len(sides) == 1 else {}) | statistics
    expects: dict[str, Any] = {}
    if channels == 1:
        expects |= GREY_TO_COLOUR
    if size:
        expects["size"] = size
    return expects
