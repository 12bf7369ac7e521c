"""Device of a recipe, for a whole command."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from instil.engine.devices import check_device, default_device
from instil.recipe import RecipeError
from instil.recipe.sections import Recipe

Options = ParamSpec("Options")
Result = TypeVar("Result")


def on_device_of_recipe(
    command: Callable[Concatenate[Recipe, Options], Result],
) -> Callable[Concatenate[Recipe, Options], Result]:
    """Decorate a command to run on the recipe's ``device``, which is checked first.

    Raises:
        RecipeError: if this machine has no such device.
    """

    @functools.wraps(command)
    def on_device(recipe: Recipe, /, *args: Options.args, **kwargs: Options.kwargs) -> Result:
        try:
            check_device(recipe.device)
        except ValueError as error:
            raise RecipeError(str(error)) from error
        with default_device(recipe.device):
            return command(recipe, *args, **kwargs)

    return on_device
