"""The recipe: teacher, student, data, losses and training of an experiment, in YAML."""

from instil.recipe.checking import build_options
from instil.recipe.errors import RecipeError, error_context
from instil.recipe.loading import build, fingerprint, load, to_yaml
from instil.recipe.objectives import (
    build_objectives,
    label_objective_configs,
    label_objectives,
)
from instil.recipe.sections import (
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    Recipe,
    SchemeConfig,
    TaskConfig,
    TrainConfig,
)
from instil.recipe.stages import STAGE_KEYS, earlier_stage, origin_stage, stages, student_stages

__all__ = [
    "STAGE_KEYS",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "Recipe",
    "RecipeError",
    "SchemeConfig",
    "TaskConfig",
    "TrainConfig",
    "build",
    "build_objectives",
    "build_options",
    "earlier_stage",
    "error_context",
    "fingerprint",
    "label_objective_configs",
    "label_objectives",
    "load",
    "origin_stage",
    "stages",
    "student_stages",
    "to_yaml",
]
