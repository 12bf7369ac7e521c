"""Groups of tensors that lose the same units when a model is pruned, in transformer layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn

from instil.students.kept_indices import expand
from instil.students.tower_axes import Axis, axes, inputs

Kind = Literal["channels", "neurons", "heads"]

ATTENTIONS = (
    ("", ("qkv",), "projection"),
    ("attention", ("query", "key", "value"), "projection"),
    ("self_attn", ("q_proj", "k_proj", "v_proj"), "o_proj"),
    ("attention", ("q_proj", "k_proj", "v_proj"), "o_proj"),
    ("attention", ("q_lin", "k_lin", "v_lin"), "out_lin"),
    ("attention.self", ("query", "key", "value"), "^output.dense"),
)
"""Path of an attention in its layer, names of its inputs and name of its output.

``^`` starts at the module around the attention, as in BERT.
"""

PERCEPTRONS = (
    (("mlp.0",), "mlp.2"),
    (("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj"),
    (("mlp.fc1",), "mlp.fc2"),
    (("intermediate.dense",), "output.dense"),
    (("ffn.lin1",), "ffn.lin2"),
)
"""Paths of the first and of the last linear layers of a perceptron in its layer."""

HEAD_COUNTS = ("heads", "num_heads", "num_attention_heads", "n_heads", "num_key_value_heads")
HEAD_SIZES = ("head_dim", "attention_head_size")
NEURON_FIELDS = ("intermediate_size", "hidden_dim")
"""Fields of a configuration of transformers with the number of neurons."""


@dataclass(frozen=True)
class UnitGroup:
    """Tensors that share units: channels, neurons or attention heads.

    Args:
        kind: kind of the units.
        count: number of units.
        outputs: axes of the layers that compute the units.
        inputs: axes of the layers that read them.
        buffers: axes of running statistics.
        attention: module with the number of heads; None for other units.
        model_configs: configurations of transformers that state the number of units.
    """

    kind: Kind
    count: int
    outputs: list[Axis]
    inputs: list[Axis]
    buffers: list[Axis] = field(default_factory=list)
    attention: nn.Module | None = None
    model_configs: tuple[Any, ...] = ()

    def by_unit(self, values: Tensor) -> Tensor:
        """Sum values at each index of an axis over each unit; returns (count,)."""
        return values.reshape(self.count, -1).sum(1)

    def magnitude(self) -> Tensor:
        """L2 norm of the weights of each unit (count,), float32."""
        parts = [self.by_unit(axis.energy().cpu()) for axis in (*self.outputs, *self.inputs)]
        return torch.stack(parts).sum(0).sqrt()

    def keep(self, units: Tensor) -> None:
        """Keep these units, in place."""
        for axis in (*self.outputs, *self.inputs, *self.buffers):
            size = axis.tensor.shape[axis.dim] // axis.copies // self.count
            axis.keep(expand(units, size))
        if self.kind == "heads":
            _scale_counts(self.attention, HEAD_COUNTS, len(units), self.count)
            if hasattr(self.attention, "all_head_size"):
                _scale_counts(self.attention, ("all_head_size",), len(units), self.count)


def set_model_configs(groups: Iterable[UnitGroup], counts: dict[Kind, tuple[int, int]]) -> None:
    """Write new numbers of units into the configurations of transformers.

    Args:
        groups: groups after pruning.
        counts: new and old number of units of each kind.
    """
    fields: dict[Kind, tuple[str, ...]] = {"heads": HEAD_COUNTS, "neurons": NEURON_FIELDS}
    configs: dict[tuple[Kind, int], Any] = {}
    for group in groups:
        configs |= {(group.kind, id(one)): one for one in group.model_configs}
    for (kind, _), config in configs.items():
        if kind in counts:
            _scale_counts(config, fields[kind], *counts[kind])


def _scale_counts(part: Any, names: Iterable[str], new: int, old: int) -> None:
    for name in names:
        if isinstance(getattr(part, name, None), int):
            setattr(part, name, getattr(part, name) * new // old)


def block_groups(model: nn.Module) -> list[UnitGroup]:
    """Return the heads and neurons of the transformer layers of a model; empty if it has none.

    Heads of models of transformers are left out if their configuration has no ``head_dim``, since
    the library could not load them again.
    """
    groups: list[UnitGroup] = []
    for layer in model.modules():
        configs = _configs(model) if _is_of_transformers(layer) else ()
        for holder_path, names, output in ATTENTIONS:
            group = _attention_group(layer, holder_path, names, output, configs)
            groups += [] if group is None else [group]
        for first_paths, last_path in PERCEPTRONS:
            first = [_part(layer, path) for path in first_paths]
            last = _part(layer, last_path)
            # BERT has an output.dense after the perceptron and one after the attention.
            if not all(_is_linear(part) for part in (*first, last)):
                continue
            outputs = list(chain.from_iterable(map(axes, first)))
            count = len(first[0].weight)
            groups.append(
                UnitGroup("neurons", count, outputs, inputs([last]), model_configs=configs)
            )
    return groups


def _attention_group(
    layer: Any, path: str, names: tuple[str, ...], output: str, configs: tuple[Any, ...]
) -> UnitGroup | None:
    """Return the heads of one pattern of attention in a layer; None if it does not fit."""
    holder = _part(layer, path) if path else layer
    parts = [_part(holder, name) for name in names]
    around = _part(layer, path.rpartition(".")[0]) if output.startswith("^") else holder
    last = _part(around, output.removeprefix("^"))
    if not all(_is_linear(part) for part in (*parts, last)):
        return None
    if configs and not all(isinstance(getattr(one, "head_dim", None), int) for one in configs):
        return None
    copies = 3 if len(parts) == 1 else 1
    # Keys: in grouped attention several query heads share one key-value head.
    key_width = len(parts[-1].weight) // copies
    size = _head_size(holder, key_width)
    if size is None:
        return None
    outputs = list(chain.from_iterable(axes(part, 0, copies) for part in parts))
    count = key_width // size
    return UnitGroup("heads", count, outputs, inputs([last]), [], holder, configs)


def _head_size(attention: Any, width: int) -> int | None:
    for name in HEAD_SIZES:
        if isinstance(getattr(attention, name, None), int):
            return int(getattr(attention, name))
    for name in HEAD_COUNTS:
        if isinstance(getattr(attention, name, None), int):
            return width // int(getattr(attention, name))
    return None


def _configs(model: nn.Module) -> tuple[Any, ...]:
    """Return the different configurations of transformers in a model."""
    configs = [getattr(part, "config", None) for part in model.modules()]
    return tuple({id(one): one for one in configs if hasattr(one, "to_dict")}.values())


def _is_of_transformers(module: nn.Module) -> bool:
    return type(module).__module__.startswith("transformers.")


def _is_linear(part: Any) -> bool:
    return isinstance(part, nn.Linear)


def _part(module: Any, path: str) -> Any:
    """Return a submodule by its path; None if there is none."""
    for name in path.split(".") if path else ():
        module = dict(module.named_children()).get(name) if module is not None else None
    return module


def groups_in(layer: nn.Module, groups: Iterable[UnitGroup]) -> Iterator[UnitGroup]:
    """Yield the groups whose readers are part of a layer."""
    parts = {id(part) for part in layer.modules()}
    for group in groups:
        if all(id(axis.module) in parts for axis in group.inputs):
            yield group
