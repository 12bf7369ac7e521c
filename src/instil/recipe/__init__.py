"""The recipe: what to train, from whom, on what and how; YAML in, checked sections out."""

from instil.recipe.checking import build_options
from instil.recipe.errors import RecipeError, at
from instil.recipe.loading import STAGE, build, fingerprint, load, origin, stages, to_yaml
from instil.recipe.objectives import build_objectives, label_goals, label_objectives
from instil.recipe.sections import Goal, Method, Model, Optimizer, Recipe, Task, Train

__all__ = [
    "STAGE",
    "Goal",
    "Method",
    "Model",
    "Optimizer",
    "Recipe",
    "RecipeError",
    "Task",
    "Train",
    "at",
    "build",
    "build_objectives",
    "build_options",
    "fingerprint",
    "label_goals",
    "label_objectives",
    "load",
    "origin",
    "stages",
    "to_yaml",
]
