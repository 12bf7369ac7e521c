"""New initial weights for parts of a student of an earlier stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from instil.functional.keyed_random import stream_key
from instil.taps.freezing import matching_names
from instil.taps.path import modules_by_path


def reset_parts(model: nn.Module, paths: Sequence[str], seed: int, stream: str) -> None:
    """Draw new initial weights for the layers of some modules, in place.

    Each layer draws its weights as it does when it is built (``reset_parameters``). BatchNorm
    statistics start again.

    Args:
        model: model on the CPU.
        paths: names of modules, or patterns such as ``layer*``.
        seed: seed of the weights.
        stream: name of their random stream.

    Raises:
        ValueError: for a path that names no module, and a layer that cannot draw its weights.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> weights = [layer.weight.clone() for layer in model]
        >>> reset_parts(model, ["1"], 0, "head")
        >>> [torch.equal(layer.weight, old) for layer, old in zip(model, weights)]
        [True, False]
    """
    modules = {name: part for name, part in modules_by_path(model).items() if name}
    names = matching_names(paths, list(modules), model, "reset")
    layers: dict[int, tuple[str, Any]] = {}
    for name in names:
        for inner, layer in modules[name].named_modules(prefix=name):
            layers[id(layer)] = (inner, layer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed((stream_key(stream) + seed) % 2**63)
        for name, layer in layers.values():
            _reset(name, layer)


def _reset(name: str, layer: Any) -> None:
    draw = getattr(layer, "reset_parameters", getattr(layer, "_reset_parameters", None))
    if draw is not None:
        draw()
    elif any(True for _ in layer.parameters(recurse=False)):
        raise ValueError(
            f"reset: '{name}' is {type(layer).__name__}, which cannot draw its weights again. "
            "Expected layers with a method reset_parameters, as those of torch.nn have it. Name "
            "other modules"
        )
