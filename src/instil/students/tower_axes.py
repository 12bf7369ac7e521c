"""Axes of the tensors of transformer layers that a narrower layer shortens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Axis:
    """One dimension of a parameter or buffer.

    Args:
        module: module that holds the tensor.
        name: name of the tensor in the module.
        dim: the dimension.
        copies: number of tensors that are stacked in this dimension, such as 3 for query, key and
            value.
    """

    module: nn.Module
    name: str
    dim: int = 0
    copies: int = 1

    @property
    def tensor(self) -> Tensor:
        """The tensor."""
        tensor: Tensor = getattr(self.module, self.name)
        return tensor

    def energy(self) -> Tensor:
        """Sum of squares of the weights at each index, float32."""
        return self.by_index(self.tensor.detach().float().square())

    def by_index(self, values: Tensor) -> Tensor:
        """Sum values of the shape of the tensor at each index, over all copies."""
        others = [dim for dim in range(values.ndim) if dim != self.dim]
        # A sum over no dimension would be a sum over all.
        sums = values.sum(others) if others else values
        return sums.view(self.copies, -1).sum(0)

    def keep(self, indices: Tensor) -> None:
        """Keep these indices, in place, and set the sizes that the module reports."""
        old = self.tensor
        length = old.shape[self.dim] // self.copies
        starts = torch.arange(self.copies, device=indices.device)[:, None] * length
        rows = (starts + indices).flatten().to(old.device)
        new = old.detach().index_select(self.dim, rows).clone()
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, old.requires_grad)
        setattr(self.module, self.name, new)
        _update_size(self.module)


def _update_size(module: Any) -> None:
    """Set the sizes that a layer reports to those of its weight."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = module.weight.shape
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, nn.Conv2d):
        # A depthwise convolution has one group per channel.
        if module.groups > 1:
            module.groups = len(module.weight)
        module.out_channels = len(module.weight)
        module.in_channels = module.weight.shape[1] * module.groups
    elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
        tensor = module.weight if module.weight is not None else module.running_mean
        module.num_features = len(tensor)


@dataclass(frozen=True)
class Block:
    """Axes of one layer.

    Args:
        stream: axes of the residual stream.
        heads: axes of the concatenated heads.
        neurons: axes of the hidden layer of the perceptron.
        attention: module with the number of heads.
    """

    stream: list[Axis]
    heads: list[Axis]
    neurons: list[Axis]
    attention: nn.Module


def axes(module: Any, dim: int = 0, copies: int = 1) -> list[Axis]:
    """Return the axes of the weight and, for its outputs, of the bias of a module.

    Args:
        module: layer with ``weight`` and perhaps ``bias``; None or one without weight for no axis.
        dim: dimension of the weight.
        copies: number of tensors that are stacked in this dimension.
    """
    if getattr(module, "weight", None) is None:
        return []
    result = [Axis(module, "weight", dim, copies)]
    if getattr(module, "bias", None) is not None:
        result.append(Axis(module, "bias", 0, copies))
    return result


def inputs(modules: Iterable[nn.Module]) -> list[Axis]:
    """Return the input axes of linear layers."""
    return [Axis(module, "weight", 1) for module in modules]


def block_of(layer: Any) -> Block:
    """Return the axes of a layer of this package, of open_clip or of transformers.

    Raises:
        ValueError: for a layer of another architecture.
    """
    if hasattr(layer, "qkv") and hasattr(layer, "norm1"):
        return _block(
            [layer.norm1, layer.norm2], [layer.qkv], 3, layer.projection, layer.mlp, layer
        )
    if hasattr(getattr(layer, "attention", None), "query"):
        attention = layer.attention
        parts = [attention.query, attention.key, attention.value]
        norms = [layer.norm1, layer.norm2]
        return _block(norms, parts, 1, attention.projection, layer.mlp, attention)
    if hasattr(getattr(layer, "self_attn", None), "q_proj") and hasattr(layer, "layer_norm1"):
        attention = layer.self_attn
        parts = [attention.q_proj, attention.k_proj, attention.v_proj]
        norms = [layer.layer_norm1, layer.layer_norm2]
        mlp = [layer.mlp.fc1, layer.mlp.fc2]
        return _block(norms, parts, 1, attention.out_proj, mlp, attention)
    if isinstance(getattr(layer, "attn", None), nn.MultiheadAttention):
        return _open_clip_block(layer)
    raise ValueError(
        f"layers of {type(layer).__name__} cannot be narrowed. Expected those of two_towers, vit, "
        "CLIP of open_clip, or CLIP of transformers"
    )


def _block(
    norms: list[Any], parts: list[Any], copies: int, projection: Any, mlp: Any, attention: nn.Module
) -> Block:
    """Axes of a layer with linear layers for query, key and value, and a perceptron."""
    first, last = mlp[0], mlp[-1]
    stream = [
        *chain.from_iterable(map(axes, norms)),
        *inputs(parts),
        *axes(projection),
        *inputs([first]),
        *axes(last),
    ]
    heads = inputs([projection])
    for part in parts:
        heads += axes(part, 0, copies)
    return Block(stream, heads, [*axes(first), *inputs([last])], attention)


def _open_clip_block(layer: Any) -> Block:
    """Axes of a ``ResidualAttentionBlock``, whose query, key and value are one tensor."""
    attention: Any = layer.attn
    block = _block([layer.ln_1, layer.ln_2], [], 1, attention.out_proj, layer.mlp, attention)
    scales = (layer.ls_1, layer.ls_2)
    block.stream.extend(Axis(scale, "gamma") for scale in scales if hasattr(scale, "gamma"))
    block.stream.append(Axis(attention, "in_proj_weight", 1))
    block.heads.append(Axis(attention, "in_proj_weight", 0, 3))
    if attention.in_proj_bias is not None:
        block.heads.append(Axis(attention, "in_proj_bias", 0, 3))
    return block
