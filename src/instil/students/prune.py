"""Structured pruning: the least important channels, neurons, heads or layers of a model.

Li et al., ICLR 2017 (magnitude); Molchanov et al., CVPR 2019 (first-order Taylor expansion).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt, Lt, MinLen
from torch import Tensor, nn
from torch.nn.utils import parametrize
from typing_extensions import Doc

from instil.students import Observe, ObservesLosses
from instil.students.depth import depth
from instil.students.kept_indices import largest
from instil.students.layers import stack
from instil.students.traced_groups import traced_groups
from instil.students.unit_groups import (
    Kind,
    UnitGroup,
    block_groups,
    groups_in,
    set_model_configs,
)

Part = Literal["channels", "neurons", "heads", "layers"]
UNIT_PARTS: tuple[Kind, ...] = ("channels", "neurons", "heads")


def prune(
    model: nn.Module,
    share: Annotated[
        float,
        Gt(0),
        Lt(1),
        Doc("share of the units of each layer that are removed; with rounds: after all rounds"),
    ],
    parts: Annotated[
        Annotated[list[Part], MinLen(1)] | None,
        Doc(
            "channels of convolutions, neurons of perceptrons, attention heads, or whole layers. "
            "null: channels, neurons and heads"
        ),
    ] = None,
    by: Annotated[
        Literal["magnitude", "taylor"],
        Doc(
            "importance of a unit: L2 norm of its weights, or the squared change of the label "
            "loss without it, to first order, on samples of the data"
        ),
    ] = "magnitude",
    observe: Observe = None,
) -> nn.Module:
    """Remove the least important units of a model, in place: its tensors become smaller.

    Transformer layers lose neurons and heads, other models the channels and neurons between two
    layers. Each layer loses the same share and keeps one unit at least. Channels that are added to
    a shortcut stay. In grouped attention a head is a key-value head with its query heads.

    Raises:
        ValueError: if the model has no unit that can be removed, or the share removes none; with
            ``taylor`` also if the samples have no labels.
    """
    _check_plain(model)
    groups = block_groups(model) or traced_groups(model)
    wanted_parts: Sequence[str] = UNIT_PARTS if parts is None else parts
    _check_parts(model, groups, parts)
    scores = _scores(model, groups, by, observe)
    num_before = sum(parameter.numel() for parameter in model.parameters())
    if "layers" in wanted_parts:
        groups, scores = _remove_layers(model, groups, scores, share)
    _remove_units(groups, scores, wanted_parts, share)
    if sum(parameter.numel() for parameter in model.parameters()) == num_before:
        raise ValueError(
            f"share: {share:.3g} of the units of a layer is less than one unit. Expected a larger "
            "share, or fewer rounds"
        )
    return model


def _check_plain(model: nn.Module) -> None:
    """Raise an error if a weight is computed from others."""
    for name, part in model.named_modules():
        if not parametrize.is_parametrized(part):
            continue
        parametrizations: Any = part.parametrizations
        (kind, *_), *_ = parametrizations.values()
        if type(kind).__module__.startswith("instil."):
            raise ValueError("the weights are quantised or sparse already. Name prune before them")
        raise ValueError(
            f"'{name}' computes its weight by {type(kind).__name__.strip('_')}, such as weight "
            "norm. Expected plain weights. Merge them in the function that builds the model, with "
            "torch.nn.utils.parametrize.remove_parametrizations"
        )


def _check_parts(
    model: nn.Module, groups: Sequence[UnitGroup], parts: Sequence[str] | None
) -> None:
    kinds = {group.kind for group in groups}
    if not kinds:
        raise ValueError(
            f"{type(model).__name__} has no units that can be removed. Expected transformer "
            "layers, or convolutions and linear layers one after another"
        )
    for part in parts or ():
        if part != "layers" and part not in kinds:
            raise ValueError(
                f"parts: {type(model).__name__} has no {part} that can be removed. Expected "
                f"{', '.join(sorted(kinds))}"
            )


def _remove_units(
    groups: Sequence[UnitGroup],
    scores: Sequence[Tensor | None],
    parts: Sequence[str],
    share: float,
) -> None:
    """Remove the units of these parts with the smallest scores."""
    counts: dict[Kind, tuple[int, int]] = {}
    selected = []
    for group, score in zip(groups, scores, strict=True):
        if group.kind in parts:
            count = _num_kept(group.count, share)
            counts[group.kind] = (count, group.count)
            group.keep(largest(score, count, group.count))
            selected.append(group)
    set_model_configs(selected, counts)


def _num_kept(count: int, share: float) -> int:
    return max(1, round(count * (1 - share)))


def _scores(
    model: nn.Module, groups: Sequence[UnitGroup], by: str, observe: Observe
) -> list[Tensor | None]:
    """Return the importance of the units of each group (count,); None if it does not matter."""
    # Without samples only the shapes are needed, because the weights come from a file.
    if observe is None:
        return [None] * len(groups)
    if by == "magnitude":
        return [group.magnitude() for group in groups]
    if not isinstance(observe, ObservesLosses):
        raise ValueError("by: taylor needs the losses of samples. Expected magnitude")
    return list(_taylor_scores(model, groups, observe))


def _taylor_scores(
    model: nn.Module, groups: Sequence[UnitGroup], observe: ObservesLosses
) -> list[Tensor]:
    """Mean over batches of the squared change of the loss without each unit, to first order.

    The derivative by a factor of the unit is the sum of gradient times weight over all weights that
    read it.
    """
    tensors: dict[int, Tensor] = {}
    for group in groups:
        tensors |= {id(axis.tensor): axis.tensor for axis in group.inputs}
    frozen = [tensor for tensor in tensors.values() if not tensor.requires_grad]
    totals = [torch.zeros(group.count) for group in groups]
    num_batches = 0
    for tensor in frozen:
        tensor.requires_grad_(True)
    try:
        for loss in observe.losses(model):
            gradients = torch.autograd.grad(loss, list(tensors.values()), allow_unused=True)
            by_tensor = dict(zip(tensors, gradients, strict=True))
            for group, total in zip(groups, totals, strict=True):
                total += _changes(group, by_tensor).square()
            num_batches += 1
    finally:
        for tensor in frozen:
            tensor.requires_grad_(False)
    return [total / max(num_batches, 1) for total in totals]


def _changes(group: UnitGroup, gradients: Mapping[int, Tensor | None]) -> Tensor:
    """Derivative of the loss by a factor of each unit (count,)."""
    change = torch.zeros(group.count)
    for axis in group.inputs:
        gradient = gradients[id(axis.tensor)]
        # A layer may not take part in the loss.
        if gradient is not None:
            products = (gradient * axis.tensor).detach().float().cpu()
            change += group.by_unit(axis.by_index(products))
    return change


def _remove_layers(
    model: nn.Module, groups: list[UnitGroup], scores: list[Tensor | None], share: float
) -> tuple[list[UnitGroup], list[Tensor | None]]:
    """Remove the layers with the smallest sum of scores; return the groups of the others."""
    layers = list(stack(model)[1])
    count = _num_kept(len(layers), share)
    by_group = {id(group): score for group, score in zip(groups, scores, strict=True)}
    totals = torch.zeros(len(layers))
    for index, layer in enumerate(layers):
        for group in groups_in(layer, groups):
            score = by_group[id(group)]
            totals[index] += 0.0 if score is None else float(score.sum())
    has_scores = all(score is not None for score in scores)
    indices = largest(totals if has_scores else None, count, len(layers)).tolist()
    gone: set[int] = set()
    for index, layer in enumerate(layers):
        if index not in indices:
            gone |= {id(group) for group in groups_in(layer, groups)}
    depth(model, indices)
    rest = [(group, by_group[id(group)]) for group in groups if id(group) not in gone]
    return [group for group, _ in rest], [score for _, score in rest]
