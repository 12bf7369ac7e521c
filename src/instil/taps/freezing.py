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
    names = matching_names(paths, [*modules, *parameters], model, "freeze")
    frozen_modules = [module for name, module in modules.items() if name in names]
    frozen: list[nn.Parameter] = []
    for module in frozen_modules:
        frozen += module.parameters()
    frozen += [parameter for name, parameter in parameters.items() if name in names]
    unique = {id(parameter): parameter for parameter in frozen}
    return frozen_modules, list(unique.values())


def matching_names(
    paths: Sequence[str], names: Sequence[str], model: nn.Module, key: str
) -> list[str]:
    """Return the names that paths or patterns match, in their order.

    Args:
        paths: names, or patterns such as ``layer*``.
        names: names of the parts of a model.
        model: the model, for the message.
        key: option that has the paths, which begins the message.

    Raises:
        ValueError: for a path that matches nothing.
    """
    for path in paths:
        if not fnmatch.filter(names, path):
            raise ValueError(
                f"{key}: {type(model).__name__} has no part '{path}'.{suggestion(path, names)}"
            )
    return [name for name in names if any(fnmatch.fnmatchcase(name, path) for path in paths)]
