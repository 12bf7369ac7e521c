"""Narrower layers: the neurons, heads and channels that do most (Muralidharan et al., NeurIPS 2024)."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor, nn

from instil.students import Observe
from instil.students.layers import stack, watched

Whole = Annotated[int, Ge(1)] | None


def width(
    model: nn.Module,
    neurons: Whole = None,
    groups: Whole = None,
    channels: Whole = None,
    observe: Observe = None,
) -> nn.Module:
    """Keep so many ``neurons`` of each perceptron, ``groups`` of a key-value head with the query heads that share it in each attention, and
    ``channels`` of the residual stream; in place.

    What counts is the activation over some samples of the data: of a neuron its mean size, of a head the mean norm of its output, of a channel the
    mean size after the norms (Minitron, Sec. 2.2). Raises ValueError where a model is not of the family Llama, or has not so many.
    """
    parts: Any = model
    layers: Any = list(stack(model)[1])
    if not all(
        hasattr(layer, "self_attn") and hasattr(getattr(layer, "mlp", None), "gate_proj")
        for layer in layers
    ):
        raise ValueError(
            f"the layers of {type(model).__name__} are not those of Llama (self_attn, mlp.gate_proj); width cannot tell its parts"
        )
    config = parts.config
    head = layers[0].self_attn.head_dim
    there = {
        "neurons": config.intermediate_size,
        "groups": config.num_key_value_heads,
        "channels": config.hidden_size,
    }
    for name, wanted in (("neurons", neurons), ("groups", groups), ("channels", channels)):
        if wanted is not None and wanted > there[name]:
            raise ValueError(
                f"{name}: {type(model).__name__} has {there[name]}; {wanted} cannot be kept"
            )
    if neurons:
        found = _sizes(model, [layer.mlp.down_proj for layer in layers], observe)
        for layer, size in zip(layers, found, strict=True):
            rows = _largest(size, neurons, config.intermediate_size)
            for part in (layer.mlp.gate_proj, layer.mlp.up_proj):
                _cut(part, rows=rows)
            _cut(layer.mlp.down_proj, columns=rows)
        config.intermediate_size = neurons
    if groups:
        _heads(model, layers, groups, head, observe)
    if channels:
        _channels(model, channels, observe)
    config.head_dim = head
    return model


def _heads(model: nn.Module, layers: Any, groups: int, head: int, observe: Observe) -> None:
    config: Any = model.config
    share = config.num_attention_heads // config.num_key_value_heads
    found = _sizes(model, [layer.self_attn.o_proj for layer in layers], observe, head)
    for layer, size in zip(layers, found, strict=True):
        attention = layer.self_attn
        kept = _largest(
            None if size is None else size.view(-1, share).sum(1),
            groups,
            config.num_key_value_heads,
        )
        pairs, queries = _each(kept, head), _each(_each(kept, share), head)
        _cut(attention.q_proj, rows=queries)
        _cut(attention.o_proj, columns=queries)
        for part in (attention.k_proj, attention.v_proj):
            _cut(part, rows=pairs)
    config.num_key_value_heads, config.num_attention_heads = groups, groups * share


def _channels(model: nn.Module, channels: int, observe: Observe) -> None:
    """Of every module that reads or writes the residual stream."""
    asked: Any = model
    config, embedding, head = (
        asked.config,
        asked.get_input_embeddings(),
        asked.get_output_embeddings(),
    )
    width, tied = config.hidden_size, head.weight is embedding.weight
    norms: list[Any] = [
        part
        for part in model.modules()
        if getattr(part, "weight", None) is not None and part.weight.shape == (width,)
    ]
    sizes = _sizes(model, norms, observe, output=True)
    total = (
        None
        if sizes[0] is None
        else torch.stack([size for size in sizes if size is not None]).sum(0)
    )
    kept = _largest(total, channels, width)
    for norm in norms:
        norm.weight = nn.Parameter(norm.weight.detach()[kept].clone())
    layers: list[nn.Module] = list(stack(model)[1])
    for layer in layers:
        for name, part in layer.named_modules():
            if isinstance(part, nn.Linear):
                writes = name.rpartition(".")[2] in ("o_proj", "down_proj")
                _cut(part, rows=kept if writes else None, columns=None if writes else kept)
    embedding.weight = nn.Parameter(embedding.weight.detach()[:, kept].clone())
    embedding.embedding_dim = channels
    if tied:
        head.weight, head.in_features = embedding.weight, channels
    else:
        _cut(head, columns=kept)
    config.hidden_size = channels


def _sizes(
    model: nn.Module, modules: list[Any], observe: Observe, head: int = 1, output: bool = False
) -> list[Tensor | None]:
    """For each module the mean norm of every ``head`` features in a row of what goes into it, or comes out; None where nothing is shown."""
    found: list[Tensor | None] = [None] * len(modules)
    if observe is None:
        return found

    def see(number: int, given: Tensor, made: Tensor) -> None:
        values = (made if output else given).float()
        size = values.reshape(-1, values.shape[-1] // head, head).norm(dim=-1).mean(0)
        before = found[number]
        found[number] = size if before is None else before + size

    with watched(modules, see):
        for _ in observe(model):
            pass
    return found


def _largest(size: Tensor | None, count: int, all_of: int) -> Tensor:
    """The numbers of the largest, in order; the first ones where no size is known."""
    return (
        torch.arange(count)
        if size is None or count == all_of
        else size.topk(count).indices.sort().values
    )


def _each(numbers: Tensor, length: int) -> Tensor:
    """The places that belong to these numbers, ``length`` in a row each."""
    return (numbers[:, None] * length + torch.arange(length, device=numbers.device)).flatten()


def _cut(linear: Any, rows: Tensor | None = None, columns: Tensor | None = None) -> None:
    """Some outputs or inputs of a linear layer, in place."""
    weight = linear.weight.detach()
    weight = weight if rows is None else weight[rows]
    linear.weight = nn.Parameter((weight if columns is None else weight[:, columns]).clone())
    linear.out_features, linear.in_features = linear.weight.shape
    if rows is not None and linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias.detach()[rows].clone())
