"""Learners of a scheme: parameters and optimizer of each one."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from instil.core import Objectives, Scheme, Teacher
from instil.engine.optimization import Optimization, Options


@dataclass(frozen=True)
class Learner:
    """Parameters and optimizer of a learner.

    Attributes:
        modules: its networks, and objectives with adapters.
        nets: parameters of its networks.
        parameters: ``nets`` and the parameters of adapters.
        optimizer: optimizer of ``parameters``.
    """

    modules: list[nn.Module]
    nets: list[nn.Parameter]
    parameters: list[nn.Parameter]
    optimizer: Optimizer


def create_learners(
    scheme: Scheme, optimizations: Callable[[str], Optimization]
) -> dict[str, Learner]:
    """Create the optimizers of all learners of a scheme.

    Args:
        scheme: prepared scheme.
        optimizations: learner -> its optimization.

    Raises:
        ValueError: if the learners do not partition the trainable parameters of the scheme.
    """
    owner: dict[nn.Parameter, str] = {}
    created = {
        name: create_learner(name, paths, scheme, optimizations(name), owner)
        for name, paths in scheme.learners.items()
    }
    check_owners(scheme, owner)
    return created


def create_learner(
    name: str,
    paths: Sequence[str],
    scheme: Scheme,
    optimization: Optimization,
    owner: dict[nn.Parameter, str],
) -> Learner:
    """Create the optimizer of a learner.

    Args:
        name: name of the learner.
        paths: paths of its modules in the scheme.
        scheme: scheme.
        optimization: type, options and parameter groups of the optimizer.
        owner: learner of each parameter; the parameters of this learner are added.

    Raises:
        ValueError: if the learner has no parameter or shares one, or a group matches none.
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
                f"({', '.join(paths)}). Expected a pattern of names that begin with "
                f"{', '.join(_first_parts(modules))}"
            )
    net_parameters: list[nn.Parameter] = []
    for group in (nets, *groups):
        net_parameters += group["params"]
    parameters = [*net_parameters, *adapters["params"]]
    if not parameters:
        reason = shared_with_teacher(scheme, modules)
        raise ValueError(f"learner '{name}' ({', '.join(paths)}) has no parameter to train{reason}")
    optimizer = optimization.make([group for group in (nets, *groups, adapters) if group["params"]])
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    return Learner(modules, net_parameters, parameters, optimizer)


def _first_parts(modules: Sequence[nn.Module]) -> list[str]:
    """Return the first part of the names of the parameters to train."""
    parts: list[str] = []
    for module in modules:
        names = [name for name, value in module.named_parameters() if value.requires_grad]
        parts += [name.removeprefix("model.").partition(".")[0] for name in names]
    return list(dict.fromkeys(parts))


def _group_of(path: str, groups: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the index of the first parameter group whose pattern matches a parameter's name."""
    name = path.removeprefix("model.")
    return next(
        (i for i, group in enumerate(groups) if fnmatch.fnmatch(name, group["match"])), None
    )


def shared_with_teacher(scheme: Scheme, modules: Sequence[nn.Module]) -> str:
    """Return why modules have nothing to train, if a teacher has their parameters.

    Args:
        scheme: scheme with the teachers.
        modules: modules of a learner.

    Returns:
        The end of a message; empty if no teacher shares a parameter.
    """
    teachers: dict[int, str] = {}
    for path, part in scheme.named_modules():
        if isinstance(part, Teacher):
            teachers |= {id(parameter): path for parameter in part.parameters()}
    for module in modules:
        for parameter in module.parameters():
            if id(parameter) in teachers:
                return (
                    f": its weights are those of '{teachers[id(parameter)]}', which is not "
                    "trained; use two separate networks"
                )
    return ""


def check_owners(scheme: Scheme, owner: dict[nn.Parameter, str]) -> None:
    """Check that each trainable parameter has one learner and belongs to no teacher.

    Args:
        scheme: scheme.
        owner: learner of each parameter.

    Raises:
        ValueError: for a parameter without a learner, and for one of a teacher.
    """
    for path, parameter in scheme.named_parameters():
        if parameter.requires_grad and parameter not in owner:
            raise ValueError(
                f"parameter '{path}' can be trained but belongs to no learner "
                f"({', '.join(scheme.learners)}); freeze it, or add it to a learner"
            )
    names = {parameter: path for path, parameter in scheme.named_parameters()}
    for path, part in scheme.named_modules():
        if not isinstance(part, Teacher):
            continue
        if (shared := next((p for p in part.parameters() if p in owner), None)) is not None:
            raise ValueError(
                f"parameter '{names[shared]}' is also a parameter of '{path}', which would be "
                "trained with it; use two separate networks"
            )
