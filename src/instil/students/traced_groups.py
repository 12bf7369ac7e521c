"""Groups of channels and neurons between two layers, found by tracing a model with ``torch.fx``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from instil.students.tower_axes import Axis, axes
from instil.students.unit_groups import Kind, UnitGroup

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
POINTWISE_MODULES = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.GELU,
    nn.SiLU,
    nn.ELU,
    nn.Hardswish,
    nn.Sigmoid,
    nn.Tanh,
    nn.Identity,
    nn.Dropout,
    nn.Dropout2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
)
"""Modules that treat each channel on its own."""

POINTWISE_FUNCTIONS: tuple[Callable[..., Any], ...] = (
    F.relu,
    F.relu6,
    F.gelu,
    F.silu,
    F.leaky_relu,
    F.hardswish,
    F.dropout,
    F.max_pool2d,
    F.avg_pool2d,
    F.adaptive_avg_pool2d,
    torch.relu,
    torch.sigmoid,
    torch.tanh,
)
POINTWISE_METHODS = ("relu", "relu_", "sigmoid", "tanh", "contiguous")
SPATIAL_MEANS = ((2, 3), (-2, -1), (-1, -2), (3, 2))


def traced_groups(model: nn.Module) -> list[UnitGroup]:
    """Return the groups whose units only convolutions and linear layers read.

    Channels that are added to a shortcut, or multiplied by a gate, are left out: all layers of that
    sum would have to lose the same ones.

    Raises:
        ValueError: if the model cannot be traced.
    """
    try:
        graph = fx.symbolic_trace(model).graph
    # A tracer runs the code of the model, which may raise any error.
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"{type(model).__name__} has no transformer layers of a known kind, and torch.fx "
            f"cannot trace it ({reason}). Expected a model of convolutions and linear layers"
        ) from error
    parts = dict(model.named_modules())
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    groups = []
    for node in graph.nodes:
        layer = parts.get(str(node.target)) if node.op == "call_module" else None
        is_plain_conv = isinstance(layer, nn.Conv2d) and layer.groups == 1
        if layer is not None and (is_plain_conv or isinstance(layer, nn.Linear)):
            search = _Search(parts, calls, layer)
            group = search.group(node)
            groups += [] if group is None else [group]
    return groups


class _Search:
    """Search for the readers of the output of one layer.

    Args:
        parts: modules of the model by path.
        calls: number of calls of each module.
        layer: convolution or linear layer.
    """

    def __init__(self, parts: dict[str, nn.Module], calls: Counter[str], layer: nn.Module) -> None:
        self._parts = parts
        self._calls = calls
        self._is_conv = isinstance(layer, nn.Conv2d)
        self._count = len(layer.weight)  # type: ignore[arg-type]
        self._outputs = axes(layer)
        self._inputs: list[Axis] = []
        self._buffers: list[Axis] = []

    def group(self, node: fx.Node) -> UnitGroup | None:
        """Return the group of the layer that a node calls; None if something else reads it."""
        if self._calls[str(node.target)] > 1 or not self._follow(node) or not self._inputs:
            return None
        kind: Kind = "channels" if self._is_conv else "neurons"
        return UnitGroup(kind, self._count, self._outputs, self._inputs, self._buffers)

    def _follow(self, node: fx.Node) -> bool:
        """Add the readers of the output of a node; false if one of them is unknown."""
        return bool(node.users) and all(self._visit(user) for user in node.users)

    def _visit(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return self._visit_module(node, self._parts[str(node.target)])
        if node.op == "call_function":
            target: Any = node.target
            is_flatten = target is torch.flatten and tuple(node.args[1:]) == (1,)
            is_pointwise = target in POINTWISE_FUNCTIONS or is_flatten
            return (is_pointwise or _is_mean(node)) and self._follow(node)
        if node.op == "call_method":
            is_flatten = node.target == "flatten" and tuple(node.args[1:]) == (1,)
            is_pointwise = node.target in POINTWISE_METHODS or is_flatten
            return (is_pointwise or _is_mean(node)) and self._follow(node)
        return False

    def _visit_module(self, node: fx.Node, part: nn.Module) -> bool:
        if self._calls[str(node.target)] > 1:
            return False
        is_conv = isinstance(part, nn.Conv2d)
        if isinstance(part, nn.Linear) and not self._is_conv and part.in_features != self._count:
            # Flattened tokens: the neurons of one token are neighbours, those of one unit are not.
            return False
        if isinstance(part, nn.Linear) or (is_conv and part.groups == 1):
            self._inputs.append(Axis(part, "weight", 1))
            return True
        if is_conv and part.groups == part.in_channels == part.out_channels:
            self._outputs += axes(part)
            return self._follow(node)
        if isinstance(part, NORMS):
            self._outputs += axes(part)
            names = ("running_mean", "running_var")
            self._buffers += [Axis(part, n) for n in names if getattr(part, n) is not None]
            return self._follow(node)
        is_flatten = isinstance(part, nn.Flatten) and part.start_dim == 1
        is_pointwise = isinstance(part, POINTWISE_MODULES) or is_flatten
        return is_pointwise and self._follow(node)


def _is_mean(node: fx.Node) -> bool:
    """Whether a node is the mean over height and width."""
    if node.target not in ("mean", torch.mean):
        return False
    dims: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", ())
    return isinstance(dims, (tuple, list)) and tuple(dims) in SPATIAL_MEANS
