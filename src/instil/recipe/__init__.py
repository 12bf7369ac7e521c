"""The recipe: what to train, from whom, on what and how; YAML in, checked sections out."""

from instil.recipe.checking import build_options
from instil.recipe.errors import RecipeError
from instil.recipe.loading import STAGE, build, build_objectives, fingerprint, load, stages, to_yaml
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
    "build",
    "build_objectives",
    "build_options",
    "fingerprint",
    "load",
    "stages",
    "to_yaml",
]
