"""Metrics that a recipe adds to the evaluation of its task."""

from __future__ import annotations

from typing import Any

from instil import catalogue
from instil.capabilities import EvaluatesRobustness, Perturbation
from instil.metrics.bases.metric import Metric
from instil.metrics.bases.packages import require_packages
from instil.recipe import build_options, error_context, stages
from instil.recipe.errors import RecipeError
from instil.recipe.sections import Recipe


def add_metrics(task: Any, recipe: Recipe) -> None:
    """Build the metrics of a recipe, and add them to its task.

    Args:
        task: task of the recipe.
        recipe: the recipe.

    Raises:
        RecipeError: for wrong options, a metric that is undefined for the labels of the task, and
            an unknown headline.
    """
    if not recipe.metrics and recipe.headline is None:
        return
    metrics: dict[str, Metric] = {}
    for name, config in recipe.metrics.items():
        path = f"metrics.{name}"
        options = build_options("metric", config.type, config.options, path)
        kind: type[Metric] = catalogue.find("metric", config.type)
        if task.kind not in kind.card.labels:
            raise RecipeError(
                f"{path}: {config.type} is undefined for labels of the kind '{task.kind}'. "
                f"Expected {' or '.join(kind.card.labels)}. Remove it"
            )
        with error_context(path):
            require_packages(kind.packages)
            metrics[name] = kind(**options)
    with error_context(""):
        task.add_metrics(metrics, recipe.headline, tuple(perturbations(recipe)))


def perturbations(recipe: Recipe) -> dict[str, Perturbation]:
    """Return the test conditions of the last stage's scheme, by the names of their metrics.

    Args:
        recipe: the whole recipe.
    """
    scheme = stages(recipe)[-1].scheme
    kind = catalogue.find("scheme", scheme.type)
    if not issubclass(kind, EvaluatesRobustness):
        return {}
    conditions: dict[str, Perturbation] = kind.robustness_evaluations(scheme.options)
    return conditions
