"""Attention and perceptron of a decoder layer, by the names that families of models give them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from instil.students.kept_indices import expand
from instil.students.layers import is_linear, is_transposed

Layout = Literal["separate", "stacked", "interleaved"]


@dataclass(frozen=True)
class AttentionNames:
    """Names of the linear layers of an attention.

    Attributes:
        module: attention inside the layer.
        inputs: projections of the queries, keys and values.
        output: projection to the residual stream.
        layout: rows of the projections. ``separate``: one layer each; ``stacked``: one layer with
            all queries, all keys and all values; ``interleaved``: one layer with query, key and
            value of each head.
    """

    module: str
    inputs: tuple[str, ...]
    output: str
    layout: Layout


@dataclass(frozen=True)
class PerceptronNames:
    """Names of the linear layers of a perceptron.

    Attributes:
        module: perceptron inside the layer; empty: the layer itself.
        inputs: layers with one row per neuron; a single one may have gate and value (two rows).
        output: layer with one column per neuron.
    """

    module: str
    inputs: tuple[str, ...]
    output: str


SEPARATE = ("q_proj", "k_proj", "v_proj")
ATTENTIONS = (
    AttentionNames("self_attn", SEPARATE, "o_proj", "separate"),
    AttentionNames("self_attn", SEPARATE, "out_proj", "separate"),
    AttentionNames("self_attn", SEPARATE, "dense", "separate"),
    AttentionNames("self_attn", ("qkv_proj",), "o_proj", "stacked"),
    AttentionNames("attn", ("c_attn",), "c_proj", "stacked"),
    AttentionNames("attention", ("query_key_value",), "dense", "interleaved"),
)
"""Attentions of Llama, OPT, Phi, Phi-3, GPT-2 and GPT-NeoX, and of the families like them."""
PERCEPTRONS = (
    PerceptronNames("mlp", ("gate_proj", "up_proj"), "down_proj"),
    PerceptronNames("mlp", ("gate_up_proj",), "down_proj"),
    PerceptronNames("mlp", ("fc1",), "fc2"),
    PerceptronNames("mlp", ("c_fc",), "c_proj"),
    PerceptronNames("mlp", ("dense_h_to_4h",), "dense_4h_to_h"),
    PerceptronNames("", ("fc1",), "fc2"),
)
"""Perceptrons of Llama, Phi-3, Phi, GPT-2, GPT-NeoX and OPT, and of the families like them."""
SUPPORTED = (
    "the families of Llama, Mistral, Qwen, Gemma, OLMo, Phi, OPT, GPT-2 and GPT-NeoX, and the "
    "attentions of mixtures of experts"
)
"""End of the message on another family."""
NORMS = ("q_norm", "k_norm")
"""Norms of all queries or keys of an attention, or of each head."""


@dataclass(frozen=True)
class Perceptron:
    """Linear layers of a perceptron: those with a row per neuron, and the output."""

    inputs: tuple[Any, ...]
    output: Any


@dataclass(frozen=True)
class Attention:
    """Linear layers of an attention, and the size of a head."""

    module: Any
    inputs: tuple[Any, ...]
    output: Any
    layout: Layout
    head_dim: int


def perceptron_of(layer: nn.Module) -> Perceptron | None:
    """Return the perceptron of a layer, or None for another family and for experts."""
    for names in PERCEPTRONS:
        part: Any = getattr(layer, names.module, None) if names.module else layer
        if all(is_linear(getattr(part, name, None)) for name in (*names.inputs, names.output)):
            inputs = tuple(getattr(part, name) for name in names.inputs)
            return Perceptron(inputs, getattr(part, names.output))
    return None


def attention_of(layer: nn.Module) -> Attention | None:
    """Return the attention of a layer, or None for another family."""
    for names in ATTENTIONS:
        part: Any = getattr(layer, names.module, None)
        if all(is_linear(getattr(part, name, None)) for name in (*names.inputs, names.output)):
            inputs = tuple(getattr(part, name) for name in names.inputs)
            head_dim = getattr(part, "head_dim", None) or part.head_size
            return Attention(part, inputs, getattr(part, names.output), names.layout, head_dim)
    return None


def prune_perceptron(part: Perceptron, neurons: Tensor, total: int) -> None:
    """Keep some neurons of a perceptron, in place.

    Args:
        part: linear layers of the perceptron.
        neurons: indices of the neurons that stay.
        total: number of neurons before.
    """
    for linear in part.inputs:
        # One layer for gate and value has the rows of all gates first.
        blocks = num_outputs(linear) // total
        rows = torch.cat([neurons + block * total for block in range(blocks)])
        select(linear, rows=rows)
    select(part.output, columns=neurons)


def prune_heads(part: Attention, groups: Tensor, total: int, queries: int) -> None:
    """Keep some groups of heads of an attention, in place.

    Args:
        part: linear layers of the attention.
        groups: indices of the key-value heads that stay.
        total: number of key-value heads before.
        queries: number of query heads that share a key-value head.
    """
    # Query heads share a key-value head in groups, so a group stays or goes as a whole.
    key_rows = expand(groups, part.head_dim)
    query_rows = expand(expand(groups, queries), part.head_dim)
    if part.layout == "separate":
        for linear, rows in zip(part.inputs, (query_rows, key_rows, key_rows), strict=True):
            select(linear, rows=rows)
    elif part.layout == "stacked":
        num_queries = total * queries * part.head_dim
        num_keys = total * part.head_dim
        value_start = num_queries + num_keys
        rows = torch.cat([query_rows, key_rows + num_queries, key_rows + value_start])
        select(part.inputs[0], rows=rows)
    else:
        select(part.inputs[0], rows=expand(groups, 3 * part.head_dim))
    select(part.output, columns=query_rows)
    _set_counts(part, len(groups), queries)
    for name, rows in zip(NORMS, (query_rows, key_rows), strict=True):
        norm = getattr(part.module, name, None)
        # A norm of each head has the size of a head and stays as it is.
        if norm is not None and norm.weight.numel() > part.head_dim:
            norm.weight = _rows_of(norm.weight, rows)


def _set_counts(part: Attention, num_groups: int, queries: int) -> None:
    """Set the sizes that the forward of an attention reads from its attributes."""
    num_heads = num_groups * queries
    counts = {
        "num_heads": num_heads,
        "num_key_value_heads": num_groups,
        "split_size": num_heads * part.head_dim,
    }
    for name, count in counts.items():
        if hasattr(part.module, name):
            setattr(part.module, name, count)


def num_outputs(linear: Any) -> int:
    """Number of outputs of a linear layer, or of a ``Conv1D`` of transformers."""
    return int(linear.weight.shape[1 if is_transposed(linear) else 0])


def num_inputs(linear: Any) -> int:
    """Number of inputs of a linear layer, or of a ``Conv1D`` of transformers."""
    return int(linear.weight.shape[0 if is_transposed(linear) else 1])


def select(linear: Any, rows: Tensor | None = None, columns: Tensor | None = None) -> None:
    """Keep some outputs or inputs of a linear layer, in place.

    Args:
        linear: linear layer, or ``Conv1D`` of transformers.
        rows: indices of the outputs that stay; None: all.
        columns: indices of the inputs that stay; None: all.
    """
    weight = linear.weight.detach()
    if is_transposed(linear):
        weight = weight.T
    if rows is not None:
        weight = weight[rows]
    if columns is not None:
        weight = weight[:, columns]
    if is_transposed(linear):
        weight = weight.T
    linear.weight = nn.Parameter(weight.clone(memory_format=torch.contiguous_format))
    if is_transposed(linear):
        linear.nx, linear.nf = linear.weight.shape
    else:
        linear.out_features, linear.in_features = linear.weight.shape
    if rows is not None and linear.bias is not None:
        linear.bias = _rows_of(linear.bias, rows)


def _rows_of(weight: Tensor, rows: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach()[rows].clone())
