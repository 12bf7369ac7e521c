"""Selection of the parts of a model that a training leaves unchanged."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from torch import nn

from instil.cards.closest import suggestion
from instil.taps.path import modules_by_path, without_wrappers


def parts_to_freeze(
    model: nn.Module, paths: Sequence[str]
) -> tuple[list[nn.Module], list[nn.Parameter]]:
    """Find the modules and parameters that paths or patterns name.

    Args:
        model: the model.
        paths: names of modules or parameters, or patterns such as ``layer*``.

    Returns:
        The named modules; and the named parameters together with all parameters of these modules.

    Raises:
        ValueError: for a path that names nothing.
    """
    modules = {name: module for name, module in modules_by_path(model).items() if name}
    parameters = {without_wrappers(name): value for name, value in model.named_parameters()}
    for path in paths:
        if not fnmatch.filter([*modules, *parameters], path):
            raise ValueError(
                f"freeze: {type(model).__name__} has no part '{path}'."
                f"{suggestion(path, [*modules, *parameters])}"
            )
    frozen_modules = [module for name, module in modules.items() if _matches(name, paths)]
    frozen: list[nn.Parameter] = []
    for module in frozen_modules:
        frozen += module.parameters()
    frozen += [parameter for name, parameter in parameters.items() if _matches(name, paths)]
    unique = {id(parameter): parameter for parameter in frozen}
    return frozen_modules, list(unique.values())


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
