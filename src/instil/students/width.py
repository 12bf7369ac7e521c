"""Width pruning: the most active neurons, heads and channels.

Muralidharan et al., NeurIPS 2024.
"""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Ge
from torch import nn
from typing_extensions import Doc

from instil.students import Observe
from instil.students.activity import activation_norms
from instil.students.channels import prune_channels
from instil.students.configured import library_class, match_configuration, text_config, twin
from instil.students.decoder_parts import (
    SUPPORTED,
    Attention,
    Perceptron,
    attention_of,
    num_inputs,
    perceptron_of,
    prune_heads,
    prune_perceptron,
)
from instil.students.kept_indices import largest
from instil.students.layers import stack

Size = Annotated[int, Ge(1)] | None
NEURON_FIELDS = ("intermediate_size", "n_inner", "ffn_dim")
"""Fields of a configuration with the number of neurons of a perceptron."""


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
    """Keep the most active parts of a decoder of transformers, in place.

    The activation is a mean over samples of the data: the size of a neuron, the norm of a head's
    output, the size of a channel after the norms (Minitron, Sec. 2.2). GPT-2, GPT-NeoX and OPT
    derive the size of a head from channels and heads, so they need both ``groups`` and
    ``channels``.

    Raises:
        ValueError: if the model is of an unknown family, or does not have this many parts.
    """
    config = text_config(model)
    attention = _attentions(model)[0]
    _check_size(model, "groups", groups, _num_groups(config))
    _check_size(model, "channels", channels, config.hidden_size)
    # Neurons and heads before channels: activations are measured on what is still there.
    if neurons:
        _prune_neurons(model, neurons, observe)
    if groups:
        _prune_groups(model, groups, observe)
    if groups or channels:
        # Stated, because transformers would derive it from sizes that have changed.
        config.head_dim = attention.head_dim
        _check_head_size(model, channels or config.hidden_size, attention.head_dim)
    if channels:
        _state_neurons(model)
        prune_channels(model, channels, observe)
    match_configuration(model, "width")
    return model


def _attentions(model: nn.Module) -> list[Attention]:
    """Return the attention of each layer."""
    try:
        layers = stack(model)[1]
    except ValueError as error:
        raise _unsupported(model) from error
    attentions = [attention_of(layer) for layer in layers]
    present = [attention for attention in attentions if attention is not None]
    if len(present) < len(layers) or library_class(model) is None:
        raise _unsupported(model)
    return present


def _unsupported(model: nn.Module) -> ValueError:
    return ValueError(
        f"width does not support the layers of {type(model).__name__}. Expected a decoder of "
        f"transformers of {SUPPORTED}"
    )


def _num_groups(config: Any) -> int:
    """Number of key-value heads; that of all heads where none are shared."""
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def _check_size(model: nn.Module, name: str, size: int | None, available: int) -> None:
    if size is not None and size > available:
        raise ValueError(f"{name}: {type(model).__name__} has {available}; {size} cannot be kept")


def _prune_neurons(model: nn.Module, neurons: int, observe: Observe) -> None:
    parts = _perceptrons(model)
    if not parts:
        raise ValueError(
            f"neurons: {type(model).__name__} has layers without a known perceptron, such as "
            "experts. Expected a dense decoder. Leave neurons out"
        )
    total = num_inputs(parts[0].output)
    _check_size(model, "neurons", neurons, total)
    norms = activation_norms(model, [part.output for part in parts], observe)
    for part, norm in zip(parts, norms, strict=True):
        prune_perceptron(part, largest(norm, neurons, total), total)
    _state_neurons(model)


def _perceptrons(model: nn.Module) -> list[Perceptron]:
    """Return the perceptron of each layer; none if a layer has another one."""
    parts = [perceptron_of(layer) for layer in stack(model)[1]]
    return [] if None in parts else [part for part in parts if part is not None]


def _state_neurons(model: nn.Module) -> None:
    """Set the number of neurons in the configuration, which may derive it from the channels."""
    config = text_config(model)
    parts = _perceptrons(model)
    names = [name for name in NEURON_FIELDS if hasattr(config, name)]
    if parts and names:
        setattr(config, names[0], num_inputs(parts[0].output))


def _prune_groups(model: nn.Module, groups: int, observe: Observe) -> None:
    config = text_config(model)
    total = _num_groups(config)
    queries_per_group = config.num_attention_heads // total
    attentions = _attentions(model)
    outputs = [attention.output for attention in attentions]
    norms = activation_norms(model, outputs, observe, attentions[0].head_dim)
    for attention, norm in zip(attentions, norms, strict=True):
        group_norm = None
        if norm is not None:
            group_norm = norm.view(-1, queries_per_group).sum(1)
        indices = largest(group_norm, groups, total)
        prune_heads(attention, indices, total, queries_per_group)
    if getattr(config, "num_key_value_heads", None) is not None:
        config.num_key_value_heads = groups
    config.num_attention_heads = groups * queries_per_group


def _check_head_size(model: nn.Module, channels: int, head_dim: int) -> None:
    """Check that the configuration gives heads of the same size.

    Raises:
        ValueError: if it derives another one from the number of channels and heads.
    """
    config = text_config(model)
    total = config.hidden_size
    config.hidden_size = channels
    try:
        derived = _attentions(twin(model))[0].head_dim
    finally:
        config.hidden_size = total
    if derived == head_dim:
        return
    num_heads = config.num_attention_heads
    raise ValueError(
        f"groups and channels: {type(model).__name__} has channels / heads features in each head. "
        f"Expected {head_dim} channels for each of the {num_heads} heads, got {channels} channels. "
        f"Set channels: {num_heads * head_dim}, or another number of groups"
    )
