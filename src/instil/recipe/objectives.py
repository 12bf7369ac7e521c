"""Objectives that a recipe describes, as objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instil import catalogue
from instil.catalogue.signatures import with_defaults
from instil.core import Objectives, Schedule
from instil.recipe.checking import build_options
from instil.recipe.errors import RecipeError
from instil.recipe.schedules import refuse_schedules
from instil.recipe.sections import ObjectiveConfig, Recipe, WeightingConfig


def build_objectives(
    configs: Mapping[str, ObjectiveConfig], balance: WeightingConfig | None = None
) -> Objectives:
    """Build the objectives of a recipe, with their weights, sample weights and balance.

    Raises:
        RecipeError: if options are wrong or do not fit each other.
    """
    objectives = {}
    sample_weights = {}
    for name, config in configs.items():
        path = f"objectives.{name}"
        objectives[name] = _build_method("objective", config, path)
        if config.sample_weight is not None:
            sample_weights[name] = _build_method(
                "weighting", config.sample_weight, f"{path}.sample_weight"
            )
    balance_method = None
    if balance is not None:
        balance_method = _build_method("balance", balance, "balance")
    weights = {name: config.weight for name, config in configs.items()}
    try:
        return Objectives(objectives, weights, sample_weights, balance_method)
    except ValueError as error:
        raise RecipeError(str(error)) from error


def _build_method(kind: str, config: ObjectiveConfig | WeightingConfig, path: str) -> Any:
    """Build the method that a section describes."""
    options = build_options(kind, config.type, config.options, path)
    try:
        return catalogue.find(kind, config.type)(**options)
    except ValueError as error:
        raise RecipeError(f"{path}: {error}") from error
    except TypeError as error:
        refuse_schedules(error, options, path)
        raise


def label_objective_configs(recipe: Recipe, *names: str) -> dict[str, ObjectiveConfig]:
    """Return the label objectives of teacher and baselines.

    Weights balance labels and teacher, and a network without a teacher needs no balance: the
    largest weight is 1, and others keep their ratio to it. A schedule counts as its largest value.

    Args:
        recipe: the recipe.
        names: methods. Those that the recipe does not have get default options.
    """
    configs: dict[str, ObjectiveConfig] = {}
    for name in names:
        own = {
            key: config
            for key, config in recipe.objectives.items()
            if config.type == name and _largest_weight(config) > 0
        }
        # With the same explicit defaults as the sections of a recipe, since the names of cached
        # teachers depend on them.
        defaults = with_defaults(catalogue.find("objective", name), {})
        configs |= own or {name: ObjectiveConfig(type=name, **defaults)}
    largest = max(map(_largest_weight, configs.values()), default=1.0)
    return {
        name: config.model_copy(update={"weight": _largest_weight(config) / largest})
        for name, config in configs.items()
    }


def _largest_weight(config: ObjectiveConfig) -> float:
    weight = config.weight
    return max(weight.start, weight.end) if isinstance(weight, Schedule) else weight


def label_objectives(recipe: Recipe, *names: str) -> Objectives:
    """Build the objectives that teacher and baselines are trained with."""
    return build_objectives(label_objective_configs(recipe, *names))
