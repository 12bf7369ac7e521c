"""Checks of the baselines that a recipe names."""

from __future__ import annotations

from typing import Any

from instil import catalogue
from instil.recipe import label_objectives
from instil.recipe.sections import Recipe


def check_baselines(recipe: Recipe, task: Any) -> None:
    """Check that the baselines of a recipe are defined for its task and data.

    Args:
        recipe: the recipe.
        task: its task.

    Raises:
        ValueError: for a baseline that is not.
    """
    is_data_free = recipe.data.surrogate is not None
    kinds = {name: catalogue.find("baseline", name) for name in catalogue.names("baseline")}
    defined = [
        name
        for name, kind in kinds.items()
        if kind.is_data_free == is_data_free and kind.applies(task)
    ]
    for name in recipe.baselines:
        if name not in defined:
            data = "a student that sees no data" if is_data_free else task.title
            raise ValueError(
                f"{name} is undefined for {data}. Expected {', '.join(defined) or 'none'}"
            )
        task.check(label_objectives(recipe, *kinds[name].label_objectives(task)))
