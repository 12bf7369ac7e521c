"""Agreement between a changed model of transformers and its configuration.

An exported student is built again from its configuration, so both must describe the same model.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

OWN_STATE = ("training", "gradient_checkpointing")
"""Attributes of a module that are set after its construction."""
PLAIN = (bool, int, float, str, tuple)
"""Types of the attributes that a configuration decides."""


def text_config(model: nn.Module) -> Any:
    """Return the configuration of the decoder; None for a model without a configuration."""
    config: Any = getattr(model, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def library_class(model: nn.Module) -> Any:
    """Return the class of transformers that a model is an instance of; None for other models."""
    if getattr(model, "config", None) is None:
        return None
    kinds = (kind for kind in type(model).__mro__ if kind.__module__.startswith("transformers."))
    return next(kinds, None)


def twin(model: nn.Module) -> Any:
    """Build the model of a model's configuration, without memory for its weights.

    Returns:
        The model, on the meta device; None for a model of another library than transformers.

    Raises:
        ValueError: if the configuration is not valid.
    """
    bare: Any = model
    kind = library_class(model)
    if kind is None:
        return None
    # Initial weights on the meta device must not advance the generator of the run.
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        try:
            return kind(copy.deepcopy(bare.config))
        except (ValueError, RuntimeError, TypeError) as error:
            raise ValueError(
                f"{kind.__name__}: its configuration does not allow these sizes: {error}"
            ) from error


def shape_differences(
    model: nn.Module, other: nn.Module
) -> Iterator[tuple[str, torch.Size, torch.Size | None]]:
    """Yield each weight of a model that has another shape in the other model, or is not in it.

    Yields:
        Name, shape, and shape in the other model; None if the weight is not in it.
    """
    expected = other.state_dict(keep_vars=True)
    for name, weight in model.state_dict(keep_vars=True).items():
        shape = expected[name].shape if name in expected else None
        if weight.shape != shape:
            yield name, weight.shape, shape


def match_configuration(model: nn.Module, change: str) -> None:
    """Set the sizes that modules keep as attributes to those of the configuration, in place.

    Args:
        model: changed model, whose configuration has the new sizes.
        change: name of the change, for the message.

    Raises:
        ValueError: if the configuration describes other weights.
    """
    other = twin(model)
    if other is None:
        return
    for name, shape, expected in shape_differences(model, other):
        described = "lacks it" if expected is None else f"gives {tuple(expected)}"
        raise ValueError(
            f"{change} does not support {type(model).__name__}: its configuration cannot describe "
            f"the result. {name} has the shape {tuple(shape)}, and the configuration {described}"
        )
    modules = dict(model.named_modules())
    for path, part in other.named_modules():
        if path in modules:
            _copy_sizes(modules[path], part)


def _copy_sizes(module: Any, source: nn.Module) -> None:
    for name, value in vars(source).items():
        is_size = isinstance(value, PLAIN) and not name.startswith("_")
        if is_size and name not in OWN_STATE and name in vars(module):
            setattr(module, name, value)
    # Gemma multiplies its embeddings by the root of their width, which is a buffer of its own.
    scale = getattr(module, "scalar_embed_scale", None)
    if scale is not None:
        module.embed_scale.fill_(scale)
