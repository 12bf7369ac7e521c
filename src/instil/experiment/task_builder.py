"""Task of a recipe."""

from __future__ import annotations

from instil import catalogue
from instil.recipe import build_options, error_context
from instil.recipe.sections import Recipe
from instil.tasks.bases.task import Task


def build_task(recipe: Recipe) -> Task:
    """Return the task of a recipe with its options; the data are not read.

    Args:
        recipe: the recipe.

    Raises:
        RecipeError: for options that do not fit.
    """
    with error_context("task"):
        task: Task = catalogue.find("task", recipe.task.name)(
            **build_options("task", recipe.task.name, recipe.task.options, "task")
        )
    return task
