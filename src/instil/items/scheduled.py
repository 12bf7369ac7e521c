"""Modules with the values that their scheduled options have in one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from torch import Tensor, nn

from instil.cards.schedule import Schedule

Module = TypeVar("Module", bound=nn.Module)
ScheduledOption = tuple[nn.Module, str, Schedule]
"""Module, name of the option and its schedule."""


def extract_schedules(module: nn.Module) -> list[ScheduledOption]:
    """Replace the schedules among the options of a module and its parts by their first values.

    Args:
        module: the module; its options are attributes.

    Returns:
        The schedules. ``with_options`` applies their values at one moment.
    """
    schedules: list[ScheduledOption] = []
    for part in module.modules():
        for option, value in vars(part).items():
            if isinstance(value, Schedule):
                schedules.append((part, option, value))
    for part, option, schedule in schedules:
        setattr(part, option, schedule.start)
    return schedules


def values_at(
    schedules: Sequence[ScheduledOption], progress: Tensor | None
) -> dict[int, dict[str, float]]:
    """Values of scheduled options, by the identity of their module.

    Args:
        schedules: result of ``extract_schedules``.
        progress: one number in [0, 1], or several equal ones. None: no values.
    """
    values: dict[int, dict[str, float]] = {}
    if not schedules or progress is None:
        return values
    moment = float(progress.view(-1)[-1])
    for part, option, schedule in schedules:
        values.setdefault(id(part), {})[option] = schedule.at(moment)
    return values


def with_options(module: Module, values: Mapping[int, Mapping[str, float]]) -> Module:
    """A module with other values of some options; ``module`` itself is not changed.

    Args:
        module: the module.
        values: result of ``values_at``.

    Returns:
        ``module`` if no option of it or its parts has another value. Else a shallow copy, which
        shares parameters, buffers, hooks and all parts without such an option.

    Example:
        >>> layer = nn.Dropout(0.5)
        >>> resolved = with_options(layer, {id(layer): {"p": 0.1}})
        >>> resolved.p, layer.p
        (0.1, 0.5)
    """
    if not values:
        return module
    children: dict[str, nn.Module | None] = {}
    for name, child in module._modules.items():
        resolved = None if child is None else with_options(child, values)
        if resolved is not child:
            children[name] = resolved
    options = values.get(id(module))
    if not children and options is None:
        return module
    copy = object.__new__(type(module))
    # Through the dictionary: ``nn.Module.__setattr__`` needs the registries that this copies.
    vars(copy).update(vars(module))
    vars(copy).update(options or {})
    if children:
        vars(copy)["_modules"] = module._modules | children
    return copy
