"""Paths of the feature levels of models of timm."""

from __future__ import annotations

from math import ceil
from typing import Any

from torch import nn

DEPTHS = 4
"""Number of taps in a stack of equal blocks."""
CHANNELS_LAST_CLASSES = ("VOLO", "VisionTransformerSAM")
"""Classes of timm with maps (N, H, W, C) that do not declare them."""
MISNAMED_LEVELS = {"CoaT": "serial_blocks{}", "Twins": "blocks.{}", "MultiScaleVit": "stages.{}"}
"""Stages of classes of timm that declare other paths; the stages of CoaT count from 1."""


def timm_levels(model: Any) -> list[str]:
    """Paths of the feature levels that a model of timm declares, shallow to deep.

    Args:
        model: model of timm.

    Returns:
        Paths of taps, which may not exist in the model. Empty for a model without feature levels.
    """
    info = list(getattr(model, "feature_info", None) or [])
    paths = [level["module"] for level in info]
    if len({level["reduction"] for level in info}) == 1:
        paths = evenly_spaced(paths)
    name = type(model).__name__
    if name in MISNAMED_LEVELS:
        first = 1 if name == "CoaT" else 0
        stages = [MISNAMED_LEVELS[name].format(i + first) for i in range(len(paths))]
        paths = [_called_part(model, path) for path in stages]
    # An empty path, such as that of the stem of TResNet, is the model itself.
    paths = [path for path in paths if path]
    # Swin: its maps are (N, H, W, C), the inputs of its perceptrons (N, L, C).
    if getattr(model, "output_fmt", "") == "NHWC":
        return [_last_mlp(model, path) or f"{path}@channels_last" for path in paths]
    is_last = name in CHANNELS_LAST_CLASSES
    return [f"{path}@channels_last" for path in paths] if is_last else paths


def evenly_spaced(paths: list[str]) -> list[str]:
    """``DEPTHS`` evenly spaced paths, with the last; all of a short list.

    Args:
        paths: paths in the order of the forward pass.
    """
    if len(paths) <= DEPTHS:
        return paths
    return [paths[ceil((i + 1) * len(paths) / DEPTHS) - 1] for i in range(DEPTHS)]


def _called_part(model: nn.Module, path: str) -> str:
    """Path of a stage; of its last block if the stage is a list, which a model does not call."""
    stage = model.get_submodule(path)
    return f"{path}.{len(stage) - 1}" if isinstance(stage, nn.ModuleList) else path


def _last_mlp(model: nn.Module, path: str) -> str:
    names = [name for name, _ in model.get_submodule(path).named_modules()]
    perceptrons = [name for name in names if name.endswith(".mlp")]
    return f"{path}.{perceptrons[-1]}:in" if perceptrons else ""
