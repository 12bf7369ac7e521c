"""Packaged recipes in which an objective can be trained."""

from __future__ import annotations

from instil import catalogue, recipe
from instil.catalogue.signatures import parameters
from instil.recipe.packaged import packaged_recipes

CLASSIFICATION = "digits"
"""Recipe of the task ``classification``; that of another task has the task's name."""
THREE_TEACHERS = (
    "teacher=[{model: cnn, options: {width: 16}}, {model: cnn, options: {width: 12}}, "
    "{model: cnn, options: {width: 8}}]"
)
LARGEST_MEMORY = 1000
SMALL_MEMORY = 512
HEADS = 4


def task_recipe(objective: str) -> str | None:
    """Recipe of the first task on an objective's card that has one; None without one.

    Args:
        objective: name of the objective.
    """
    names = _names()
    for task in catalogue.find("objective", objective).card.tasks:
        name = CLASSIFICATION if task == "classification" else task
        if name in names:
            return name
    return None


def own_recipe(objective: str) -> str | None:
    """Recipe of the objective's own name, with the scheme and data that it needs; None without one.

    Args:
        objective: name of the objective.
    """
    is_packaged = objective in _names()
    return objective if is_packaged and objective in recipe.load(objective).objectives else None


def needs_members(objective: str) -> bool:
    """Whether an objective reads the outputs of several teachers."""
    needs = catalogue.find("objective", objective).needs
    return any("members" in alternatives for alternatives in needs["teacher"])


def learns_from_model_loss_role(objective: str) -> bool:
    """Whether an objective reads a loss that the student computes itself."""
    return ("loss",) in catalogue.find("objective", objective).needs["student"]


def needs_several_labels(objective: str) -> bool:
    """Whether an objective is only defined for samples with several labels."""
    labels = catalogue.find("objective", objective).card.labels
    return "multi" in labels and "single" not in labels


def small_options(objective: str) -> dict[str, int]:
    """Options with which an objective fits a tiny network: small memories, few relation heads.

    Args:
        objective: name of the objective.
    """
    options = {}
    for name, parameter in parameters(catalogue.find("objective", objective)).items():
        if name == "heads":
            options[name] = HEADS
        elif isinstance(parameter.default, int) and parameter.default > LARGEST_MEMORY:
            options[name] = SMALL_MEMORY
    return options


def _names() -> set[str]:
    return {path.rpartition("/")[2] for path in packaged_recipes()}
