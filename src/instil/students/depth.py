"""Depth pruning: some of the layers of a model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from instil.students import Observe
from instil.students.layers import observed, stack

By = Literal["even", "first", "last", "influence"]


def depth(
    model: nn.Module,
    layers: Annotated[
        int | list[int], Doc("number of layers that stay, or their indices, counted from 0")
    ],
    by: Annotated[
        By,
        Doc(
            "choice of the layers: evenly spaced from the first to the last (Sanh et al. 2019), "
            "the first, the last, or those with the largest influence, "
            "1 - E[cos(input, output)], on samples of the data (Men et al. 2024, Eq. 1)"
        ),
    ] = "even",
    observe: Observe = None,
) -> nn.Module:
    """Keep some layers of a model, in their order and in place.

    Raises:
        ValueError: for layers that do not exist, and for a model without a list of layers of one
            class.
    """
    path, all_layers = stack(model)
    count = layers if isinstance(layers, int) else len(layers)
    if count > len(all_layers) or count < 1:
        raise ValueError(
            f"{type(model).__name__} has {len(all_layers)} layers; {count} cannot be kept"
        )
    indices = layers
    if isinstance(indices, int):
        indices = _choose(model, all_layers, count, by, observe)
    _check_indices(indices, len(all_layers))
    # The layers themselves move to the new list: weights are not copied.
    model.set_submodule(path, nn.ModuleList(all_layers[index] for index in indices))
    for new_index, index in enumerate(indices):
        _set_layer_index(all_layers[index], new_index)
    _update_config(getattr(model, "config", None), indices)
    return model


def _check_indices(indices: list[int], num_layers: int) -> None:
    in_range = all(0 <= index < num_layers for index in indices)
    if not in_range or sorted(set(indices)) != list(indices):
        raise ValueError(
            f"layers are numbers from 0 to {num_layers - 1}, each once and in order, not {indices}"
        )


def _choose(
    model: nn.Module, all_layers: nn.ModuleList, count: int, by: By, observe: Observe
) -> list[int]:
    """Return the indices of the layers that stay."""
    num_layers = len(all_layers)
    if by == "influence" and observe is not None:
        scores = influence(model, all_layers, observe)
        ranked = sorted(range(num_layers), key=lambda index: -scores[index])
        return sorted(ranked[:count])
    if by == "first":
        return list(range(count))
    if by == "last":
        return list(range(num_layers - count, num_layers))
    if count == 1:
        return [0]
    return [round(index * (num_layers - 1) / (count - 1)) for index in range(count)]


def influence(model: nn.Module, all_layers: nn.ModuleList, observe: Observe) -> list[float]:
    """Compute the block influence 1 - E[cos(input, output)] of each layer.

    Args:
        model: the model.
        all_layers: its layers.
        observe: runs the model on samples; the mean is over their tokens.
    """
    totals = [0.0] * len(all_layers)
    counts = [0] * len(all_layers)

    def add(index: int, layer_input: Tensor, layer_output: Tensor) -> None:
        # float32: half precision leaves few digits of 1 - cosine for a cosine near 1.
        cosine = F.cosine_similarity(layer_input.float(), layer_output.float(), -1)
        totals[index] += (1 - cosine).sum().item()
        counts[index] += cosine.numel()

    assert observe is not None
    with observed(all_layers, add):
        for _ in observe(model):
            pass
    return [total / max(count, 1) for total, count in zip(totals, counts, strict=True)]


def _set_layer_index(layer: nn.Module, index: int) -> None:
    """Set the index that layers of transformers use for their cache."""
    for part in layer.modules():
        if hasattr(part, "layer_idx"):
            part.layer_idx = index  # type: ignore[assignment]


def _update_config(config: Any, indices: list[int]) -> None:
    """Set the number and kinds of layers in a configuration of transformers."""
    if config is None:
        return
    layer_types = getattr(config, "layer_types", None)
    if isinstance(layer_types, list):
        config.layer_types = [layer_types[index] for index in indices]
    config.num_hidden_layers = len(indices)
