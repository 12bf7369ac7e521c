"""Which size and normalisation a model expects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from instil.cards import closest

EXPECTED = ("size", "mean", "std")
GREY_TO_COLOUR = {
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
}  # three values make three channels of one


def input_of(model: nn.Module) -> dict[str, Any]:
    """Options ``size``, ``mean`` and ``std`` of the task's call, as far as the model says them in its attribute ``expects``; else {}.

    ``build`` sets ``expects`` on timm and torchvision models, with the values their weights were trained with; a user's builder may set it too.
    """
    expects = getattr(model, "expects", None) or {}
    for name in expects:
        if name not in EXPECTED:
            raise ValueError(
                f"{type(model).__name__}.expects: '{name}' is unknown; {closest(name, EXPECTED)}"
            )
    return dict(expects)


def timm_input(
    config: Mapping[str, Any], pretrained: bool, channels: int, size: int | tuple[int, int] | None
) -> dict[str, Any]:
    """What timm's ``pretrained_cfg`` says; of a model without those weights only the size, where it cannot be another.

    For other than three channels timm sums the first layer's weights, and mean and deviation are the averages over colours.
    """
    wanted = (
        {"size": size or tuple(config["input_size"][1:])}
        if pretrained or size or config.get("fixed_input_size")
        else {}
    )
    if pretrained:
        for name in ("mean", "std"):
            values = tuple(config[name])
            wanted[name] = values if channels == len(values) else (sum(values) / len(values),)
    return wanted


def torchvision_input(transforms: Any, channels: int, size: int | None) -> dict[str, Any]:
    """What the transforms of torchvision's weights say; without them, grey images are made colour and ``size`` (of a transformer) is kept."""
    if transforms is not None:
        return {
            "size": transforms.crop_size[0],
            "mean": tuple(transforms.mean),
            "std": tuple(transforms.std),
        }
    return (GREY_TO_COLOUR if channels == 1 else {}) | ({"size": size} if size else {})
