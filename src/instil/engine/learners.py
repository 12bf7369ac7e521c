"""Learners of a scheme: which parameters each one trains, and its optimizer."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from instil.core import Objectives, Scheme, Teacher
from instil.engine.optimization import Optimization, Options


@dataclass(frozen=True)
class Learner:
    """Parameters of a learner's nets, all its parameters with those of adapters, and their optimizer."""

    nets: list[nn.Parameter]
    parameters: list[nn.Parameter]
    optimizer: Optimizer


def create_learner(
    name: str,
    paths: Sequence[str],
    scheme: Scheme,
    optimization: Optimization,
    owner: dict[nn.Parameter, str],
) -> Learner:
    """Make the optimizer of a learner.

    Args:
        name: of the learner.
        paths: of its modules in the scheme.
        scheme: the scheme.
        optimization: type, options and parameter groups.
        owner: learner of each parameter; this one's are added.

    Returns:
        The learner.

    Raises:
        ValueError: if it has no parameter, shares one, or a group matches none.
    """
    modules = [scheme.get_submodule(path) for path in paths]
    groups: list[Options] = [
        {"params": []} | {k: v for k, v in group.items() if k != "match"}
        for group in optimization.groups
    ]
    nets: Options = {"params": []}
    adapters: Options = {"params": [], "weight_decay": 0.0}
    for module in modules:
        for path, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            if owner.setdefault(parameter, name) != name:
                raise ValueError(
                    f"parameter '{path}' belongs to two learners, {owner[parameter]} and {name}"
                )
            index = _group_of(path, optimization.groups)
            group = nets if index is None else groups[index]
            (adapters if isinstance(module, Objectives) else group)["params"].append(parameter)
    for group, spec in zip(groups, optimization.groups, strict=True):
        if not group["params"]:
            raise ValueError(
                f"optimizer group '{spec['match']}' matches no parameter of learner '{name}' "
                f"({', '.join(paths)})"
            )
    own = [parameter for group in (nets, *groups) for parameter in group["params"]]
    every = [*own, *adapters["params"]]
    if not every:
        why = _shared_with_teacher(scheme, modules)
        raise ValueError(f"learner '{name}' ({', '.join(paths)}) has no parameter to train{why}")
    optimizer = optimization.make([group for group in (nets, *groups, adapters) if group["params"]])
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    return Learner(own, every, optimizer)


def _group_of(path: str, groups: Sequence[Mapping[str, Any]]) -> int | None:
    """Index of the first parameter group whose pattern matches a parameter's name."""
    name = path.removeprefix("model.")
    return next(
        (i for i, group in enumerate(groups) if fnmatch.fnmatch(name, group["match"])), None
    )


def _shared_with_teacher(scheme: Scheme, modules: Sequence[nn.Module]) -> str:
    """Why a learner has nothing to train, if a teacher holds its parameters."""
    teachers = {
        id(parameter): path
        for path, part in scheme.named_modules()
        if isinstance(part, Teacher)
        for parameter in part.parameters()
    }
    for module in modules:
        for parameter in module.parameters():
            if id(parameter) in teachers:
                return (
                    f": its weights are those of '{teachers[id(parameter)]}', which never learns; "
                    "give the two nets of their own"
                )
    return ""


def check_owners(scheme: Scheme, owner: dict[nn.Parameter, str]) -> None:
    """ValueError for a trainable parameter without a learner, and for one that a teacher holds."""
    for path, parameter in scheme.named_parameters():
        if parameter.requires_grad and parameter not in owner:
            raise ValueError(
                f"parameter '{path}' can be trained but belongs to no learner "
                f"({', '.join(scheme.learners)}); freeze it or name it"
            )
    names = {parameter: path for path, parameter in scheme.named_parameters()}
    for path, part in scheme.named_modules():
        if not isinstance(part, Teacher):
            continue
        if (shared := next((p for p in part.parameters() if p in owner), None)) is not None:
            raise ValueError(
                f"parameter '{names[shared]}' is one of '{path}' too, which would learn with it; "
                "give the two nets of their own"
            )
