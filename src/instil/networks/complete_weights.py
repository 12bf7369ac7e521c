"""Weights of transformers that must cover the layers of their configuration."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

from torch import nn

INDEX = re.compile(r"(?<=\.)\d+(?=\.)")
"""Index of a repeated layer in the name of a parameter."""


def load_complete(load: Callable[..., Any], path: Any, **options: Any) -> Any:
    """Load a model whose weights cover its layers; a new head, such as a classifier, is allowed.

    Args:
        load: ``from_pretrained`` of a class of transformers.
        path: folder or name of the model.
        **options: further options of ``load``.

    Raises:
        ValueError: if parameters have another shape than their weights, or a repeated layer or
            most parameters would start at random.
    """
    # The error of transformers names neither the parameter nor its shapes.
    arguments = {"ignore_mismatched_sizes": True} | options
    model, report = load(path, output_loading_info=True, **arguments)
    mismatched = sorted(report.get("mismatched_keys", ()))
    if mismatched and not options.get("ignore_mismatched_sizes"):
        name, stored, expected = mismatched[0]
        raise ValueError(
            f"'{name}' has the shape {tuple(stored)} in the weights and {tuple(expected)} in this "
            "model. Expected equal shapes, such as those of a head with the classes of the data. "
            "Set ignore_mismatched_sizes: true in its options for new weights of such parameters"
        )
    require_complete(model, report["missing_keys"])
    return model


def require_complete(model: nn.Module, missing: Collection[str]) -> None:
    """Check that parameters without weights belong to a new head.

    Args:
        model: the model.
        missing: names of the parameters that are not in its weights.

    Raises:
        ValueError: if a repeated layer or most parameters would start at random.
    """
    names = {name for name, _ in model.named_parameters()}
    loaded = {INDEX.sub("*", name) for name in names - set(missing)}
    layers = sorted(name for name in names & set(missing) if INDEX.sub("*", name) in loaded)
    if layers:
        raise ValueError(
            f"the weights have no '{layers[0]}' and {len(layers) - 1} more parameters of such "
            "layers, which would start at random. Expected weights of all layers of the "
            "configuration. Correct the number of layers in it"
        )
    if 2 * len(names & set(missing)) > len(names):
        raise ValueError(
            f"{len(names & set(missing))} of {len(names)} parameters are not in the weights and "
            "would start at random. Expected weights of this architecture. Check the folder and "
            "the class of the model"
        )
