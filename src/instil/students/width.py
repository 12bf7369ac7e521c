"""Width pruning: the most active neurons, heads and channels.

Muralidharan et al., NeurIPS 2024.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.students import Observe
from instil.students.layers import observed, stack

Size = Annotated[int, Ge(1)] | None


def width(
    model: nn.Module,
    neurons: Annotated[Size, Doc("neurons of each perceptron. None: all")] = None,
    groups: Annotated[
        Size,
        Doc("key-value heads of each attention, with the query heads that share them. None: all"),
    ] = None,
    channels: Annotated[Size, Doc("channels of the residual stream. None: all")] = None,
    observe: Observe = None,
) -> nn.Module:
    """Keep the most active parts of a model of the Llama family, in place.

    The activation is a mean over samples of the data: the size of a neuron, the norm of a head's
    output, the size of a channel after the norms (Minitron, Sec. 2.2).

    Raises:
        ValueError: if the model is of another family, or does not have this many parts.
    """
    llama: Any = model
    layers: Any = list(stack(model)[1])
    _check_family(model, layers)
    config = llama.config
    head_dim = layers[0].self_attn.head_dim
    _check_size(model, "neurons", neurons, config.intermediate_size)
    _check_size(model, "groups", groups, config.num_key_value_heads)
    _check_size(model, "channels", channels, config.hidden_size)
    # Neurons and heads before channels: activations are measured on what is still there.
    if neurons:
        _prune_neurons(model, layers, neurons, observe)
    if groups:
        _prune_heads(model, layers, groups, head_dim, observe)
    if channels:
        _prune_channels(model, channels, observe)
    # Stated, because transformers would derive it from sizes that have changed.
    config.head_dim = head_dim
    return model


def _check_family(model: nn.Module, layers: Any) -> None:
    for layer in layers:
        has_perceptron = hasattr(getattr(layer, "mlp", None), "gate_proj")
        if not hasattr(layer, "self_attn") or not has_perceptron:
            raise ValueError(
                f"the layers of {type(model).__name__} are not those of Llama (self_attn, "
                "mlp.gate_proj); width does not support this architecture"
            )


def _check_size(model: nn.Module, name: str, size: int | None, available: int) -> None:
    if size is not None and size > available:
        raise ValueError(f"{name}: {type(model).__name__} has {available}; {size} cannot be kept")


def _prune_neurons(model: nn.Module, layers: Any, neurons: int, observe: Observe) -> None:
    config: Any = model.config
    norms = _activation_norms(model, [layer.mlp.down_proj for layer in layers], observe)
    for layer, norm in zip(layers, norms, strict=True):
        rows = _largest(norm, neurons, config.intermediate_size)
        for part in (layer.mlp.gate_proj, layer.mlp.up_proj):
            _prune(part, rows=rows)
        _prune(layer.mlp.down_proj, columns=rows)
    config.intermediate_size = neurons


def _prune_heads(
    model: nn.Module, layers: Any, groups: int, head_dim: int, observe: Observe
) -> None:
    config: Any = model.config
    queries_per_group = config.num_attention_heads // config.num_key_value_heads
    outputs = [layer.self_attn.o_proj for layer in layers]
    norms = _activation_norms(model, outputs, observe, head_dim)
    for layer, norm in zip(layers, norms, strict=True):
        attention = layer.self_attn
        group_norm = None
        if norm is not None:
            group_norm = norm.view(-1, queries_per_group).sum(1)
        indices = _largest(group_norm, groups, config.num_key_value_heads)
        # Query heads share a key-value head in groups, so a group stays or goes as a whole.
        key_rows = _expand(indices, head_dim)
        query_rows = _expand(_expand(indices, queries_per_group), head_dim)
        _prune(attention.q_proj, rows=query_rows)
        _prune(attention.o_proj, columns=query_rows)
        for part in (attention.k_proj, attention.v_proj):
            _prune(part, rows=key_rows)
    config.num_key_value_heads = groups
    config.num_attention_heads = groups * queries_per_group


def _prune_channels(model: nn.Module, channels: int, observe: Observe) -> None:
    """Prune every module that reads or writes the residual stream."""
    llama: Any = model
    config = llama.config
    embedding = llama.get_input_embeddings()
    head = llama.get_output_embeddings()
    is_tied = head.weight is embedding.weight
    # Recognized by shape: norms are the only modules with one weight per channel.
    norms: list[Any] = [
        part
        for part in model.modules()
        if getattr(part, "weight", None) is not None and part.weight.shape == (config.hidden_size,)
    ]
    sizes = _activation_norms(model, norms, observe, of_output=True)
    total = None
    if sizes[0] is not None:
        total = torch.stack([size for size in sizes if size is not None]).sum(0)
    indices = _largest(total, channels, config.hidden_size)
    for norm in norms:
        norm.weight = nn.Parameter(norm.weight.detach()[indices].clone())
    layers: list[nn.Module] = list(stack(model)[1])
    for layer in layers:
        _prune_stream(layer, indices)
    embedding.weight = nn.Parameter(embedding.weight.detach()[:, indices].clone())
    embedding.embedding_dim = channels
    if is_tied:
        head.weight = embedding.weight
        head.in_features = channels
    else:
        _prune(head, columns=indices)
    config.hidden_size = channels


def _prune_stream(layer: nn.Module, indices: Tensor) -> None:
    """Prune the linear parts of a layer: outputs of those that write to the stream, else inputs."""
    for name, part in layer.named_modules():
        if not isinstance(part, nn.Linear):
            continue
        if name.rpartition(".")[2] in ("o_proj", "down_proj"):
            _prune(part, rows=indices)
        else:
            _prune(part, columns=indices)


def _activation_norms(
    model: nn.Module,
    modules: list[Any],
    observe: Observe,
    group: int = 1,
    of_output: bool = False,
) -> list[Tensor | None]:
    """Return the mean norm of every ``group`` neighbouring features of each module.

    Args:
        model: the model.
        modules: modules whose features are measured.
        observe: runs the model on samples.
        group: number of neighbouring features.
        of_output: measure outputs instead of inputs.

    Returns:
        One tensor (features / group,) per module, or None without samples.
    """
    norms: list[Tensor | None] = [None] * len(modules)
    if observe is None:
        return norms

    def add(index: int, module_input: Tensor, module_output: Tensor) -> None:
        values = (module_output if of_output else module_input).float()
        norm = values.reshape(-1, values.shape[-1] // group, group).norm(dim=-1).mean(0)
        total = norms[index]
        norms[index] = norm if total is None else total + norm

    with observed(modules, add):
        for _ in observe(model):
            pass
    return norms


def _largest(norm: Tensor | None, count: int, total: int) -> Tensor:
    """Return the indices of the largest norms, in order; the first ones if norms are unknown."""
    if norm is None or count == total:
        return torch.arange(count)
    # Sorted, so that the features keep their order.
    return norm.topk(count).indices.sort().values


def _expand(indices: Tensor, length: int) -> Tensor:
    """Return the indices of the features in blocks of ``length`` with these indices."""
    return (indices[:, None] * length + torch.arange(length, device=indices.device)).flatten()


def _prune(linear: Any, rows: Tensor | None = None, columns: Tensor | None = None) -> None:
    """Keep some outputs or inputs of a linear layer, in place."""
    weight = linear.weight.detach()
    if rows is not None:
        weight = weight[rows]
    if columns is not None:
        weight = weight[:, columns]
    linear.weight = nn.Parameter(weight.clone())
    linear.out_features, linear.in_features = linear.weight.shape
    if rows is not None and linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias.detach()[rows].clone())
