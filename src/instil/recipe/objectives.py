"""The objectives that a recipe names, as objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instil import catalogue
from instil.core import Objectives, Schedule
from instil.recipe.checking import build_options
from instil.recipe.errors import RecipeError
from instil.recipe.sections import Factor, Goal, Recipe


def build_objectives(objectives: Mapping[str, Goal], balance: Factor | None = None) -> Objectives:
    """The objectives of a recipe with their weights, those of their samples, and what balances them."""
    made = {key: _made("objective", goal, f"objectives.{key}") for key, goal in objectives.items()}
    sample_weights = {
        key: _made("weighting", goal.sample_weight, f"objectives.{key}.sample_weight")
        for key, goal in objectives.items()
        if goal.sample_weight is not None
    }
    balancing = None if balance is None else _made("balance", balance, "balance")
    try:
        return Objectives(
            made, {key: goal.weight for key, goal in objectives.items()}, sample_weights, balancing
        )
    except ValueError as error:
        raise RecipeError(str(error)) from error


def _made(kind: str, section: Goal | Factor, path: str) -> Any:
    """The method that a section names, with its options."""
    options = build_options(kind, section.type, section.options, path)
    try:
        return catalogue.find(kind, section.type)(**options)
    except (TypeError, ValueError) as error:
        scheduled = [name for name, value in options.items() if isinstance(value, Schedule)]
        if isinstance(error, TypeError) and not scheduled:
            raise
        hint = (
            f" (one of {', '.join(scheduled)} cannot be a schedule)"
            if isinstance(error, TypeError)
            else ""
        )
        raise RecipeError(f"{path}: {error}{hint}") from error


def label_goals(recipe: Recipe, *names: str) -> dict[str, Goal]:
    """Of each method the recipe's own objectives, or one with its defaults."""
    found: dict[str, Goal] = {}
    for name in names:
        found |= {key: goal for key, goal in recipe.objectives.items() if goal.type == name} or {
            name: Goal(type=name)
        }
    return found


def label_objectives(recipe: Recipe, *names: str) -> Objectives:
    """What teacher and baselines are trained with."""
    return build_objectives(label_goals(recipe, *names))
