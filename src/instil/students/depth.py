"""Fewer layers: some of the model's own, with all else as it is."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from instil.students import Observe
from instil.students.layers import stack, watched

By = Literal["even", "first", "last", "influence"]


def depth(
    model: nn.Module,
    layers: Annotated[int, Ge(1)] | list[int],
    by: By = "even",
    observe: Observe = None,
) -> nn.Module:
    """Keep so many layers, or the ones with these numbers, counted from 0; in their order, in place.

    ``by``: which ones: ``even`` spreads them from the first to the last (Sanh et al. 2019), ``first`` and ``last`` keep an end, ``influence`` those
    that turn what passes through them most, 1 - E[cos(input, output)], on some samples of the data (Men et al. 2024, Eq. 1).

    Raises ValueError for layers that are not there, and for a model without a list of layers of one kind.
    """
    path, every = stack(model)
    count = layers if isinstance(layers, int) else len(layers)
    if count > len(every) or not count:
        raise ValueError(f"{type(model).__name__} has {len(every)} layers; {count} cannot be kept")
    kept = _chosen(model, every, count, by, observe) if isinstance(layers, int) else layers
    if any(not 0 <= number < len(every) for number in kept) or sorted(set(kept)) != list(kept):
        raise ValueError(
            f"layers are numbers from 0 to {len(every) - 1}, each once and in order, not {kept}"
        )
    model.set_submodule(path, nn.ModuleList(every[number] for number in kept))
    for place, number in enumerate(kept):
        counted: list[Any] = [
            part for part in every[number].modules() if hasattr(part, "layer_idx")
        ]
        for part in counted:
            part.layer_idx = place
    _tell(getattr(model, "config", None), kept)
    return model


def _chosen(
    model: nn.Module, every: nn.ModuleList, count: int, by: By, observe: Observe
) -> list[int]:
    last = len(every) - 1
    if by == "influence" and observe is not None:
        found = influence(model, every, observe)
        return sorted(sorted(range(len(every)), key=lambda number: -found[number])[:count])
    if by in ("first", "last"):
        return list(range(count)) if by == "first" else list(range(len(every) - count, len(every)))
    return [round(number * last / (count - 1)) for number in range(count)] if count > 1 else [0]


def influence(model: nn.Module, every: nn.ModuleList, observe: Observe) -> list[float]:
    """1 - E[cos(input, output)] of each layer, over the tokens that ``observe`` shows the model."""
    turned, seen = [0.0] * len(every), [0] * len(every)

    def see(number: int, given: Tensor, made: Tensor) -> None:
        cosine = F.cosine_similarity(given.float(), made.float(), -1)
        turned[number] += (1 - cosine).sum().item()
        seen[number] += cosine.numel()

    assert observe is not None
    with watched(every, see):
        for _ in observe(model):
            pass
    return [total / max(number, 1) for total, number in zip(turned, seen, strict=True)]


def _tell(config: Any, kept: list[int]) -> None:
    """What transformers' configuration says of layers."""
    if config is None:
        return
    if isinstance(kinds := getattr(config, "layer_types", None), list):
        config.layer_types = [kinds[number] for number in kept]
    config.num_hidden_layers = len(kept)
