"""Removal of channels of the residual stream."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from instil.students import Observe
from instil.students.activity import activation_norms
from instil.students.configured import shape_differences, text_config, twin
from instil.students.kept_indices import largest


def prune_channels(model: nn.Module, channels: int, observe: Observe) -> None:
    """Keep the most active channels of the residual stream, in place.

    The weights that read or write the stream are those with another size in the model of the new
    configuration.

    Args:
        model: decoder of transformers, whose configuration fixes the size of a head.
        channels: number of channels that stay.
        observe: runs the model on samples; None: the first channels stay.
    """
    config = text_config(model)
    total = config.hidden_size
    config.hidden_size = channels
    # OPT projects embeddings of another width to that of the stream.
    if getattr(config, "word_embed_proj_dim", None) == total:
        config.word_embed_proj_dim = channels
    different = {
        name: shape for name, _, shape in shape_differences(model, twin(model)) if shape is not None
    }
    # The measurement runs the model, whose modules may read their sizes from the configuration.
    config.hidden_size = total
    norms = _stream_norms(model, different)
    sizes = activation_norms(model, norms, observe, of_output=True)
    config.hidden_size = channels
    importance = None
    if sizes and sizes[0] is not None:
        importance = torch.stack([size for size in sizes if size is not None]).sum(0)
    indices = largest(importance, channels, total)
    pruned: dict[nn.Parameter, nn.Parameter] = {}
    for name in different:
        _prune_weight(model, name, different[name], indices, pruned)


def _stream_norms(model: nn.Module, different: dict[str, torch.Size]) -> list[Any]:
    """Norms of the residual stream: the modules with one weight per channel."""
    return [
        part
        for path, part in model.named_modules()
        if f"{path}.weight" in different and len(different[f"{path}.weight"]) == 1
    ]


def _prune_weight(
    model: nn.Module,
    name: str,
    shape: torch.Size,
    indices: Tensor,
    pruned: dict[nn.Parameter, nn.Parameter],
) -> None:
    """Keep the channels of one weight; tied weights stay tied."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    weight = getattr(module, leaf)
    if weight not in pruned:
        values = weight.detach()
        for axis, size in enumerate(shape):
            if values.shape[axis] != size:
                values = values.index_select(axis, indices)
        pruned[weight] = nn.Parameter(values.clone(), weight.requires_grad)
    setattr(module, leaf, pruned[weight])
