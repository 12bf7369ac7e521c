"""Checks of recipes whose teacher is not a PyTorch network: an estimator, a file or a server."""

from __future__ import annotations

from instil import catalogue
from instil.cards import Tag, has_tag
from instil.core import Objective, Objectives
from instil.recipe.errors import RecipeError
from instil.recipe.sections import Recipe

NETWORK_ROLES = {"attentions", "embedding", "features", "head", "hidden_states", "input"}
"""Roles that only a PyTorch network has."""
SCHEME_NEEDS: dict[Tag, str] = {
    "teacher_gradients": "gradients of the teacher's outputs with respect to its input",
    "teacher_modules": "the modules of the teacher",
}
"""Tags of schemes, and what they need of a teacher."""


def check_foreign_teachers(recipe: Recipe, objectives: Objectives) -> None:
    """Check that scheme and objectives need only logits of a teacher that is not a network.

    Args:
        recipe: one stage.
        objectives: objectives of its student.

    Raises:
        RecipeError: for a scheme or an objective that needs gradients, modules or inner outputs.
    """
    foreign = [config.model for config in recipe.teachers if not config.is_differentiable]
    # A store replaces the teachers; its reader explains which outputs were recorded.
    if not foreign or recipe.store is not None:
        return
    scheme = catalogue.find("scheme", recipe.scheme.type)
    for tag, need in SCHEME_NEEDS.items():
        if has_tag(scheme, tag):
            raise RecipeError(
                f"scheme: {recipe.scheme.type} needs {need}, and the teacher {foreign[0]} has "
                "none. Expected a PyTorch network as the teacher. Use scheme: offline"
            )
    # The outputs of another teacher may satisfy the need. A server returns tokens with their
    # probabilities; which roles these have is checked with its first response.
    if len(foreign) < len(recipe.teachers) or any(config.remote for config in recipe.teachers):
        return
    for name, objective in objectives.named():
        _check_objective(name, objective, foreign[0])


def _check_objective(name: str, objective: Objective, model: str) -> None:
    title = type(objective).__name__
    for roles in objective.needs["teacher"]:
        if "input" in roles:
            raise RecipeError(
                f"objectives.{name}: {title} needs gradients of the teacher's outputs with respect "
                f"to its input, and the teacher {model} has none. Expected a PyTorch network as "
                "the teacher. Use an objective on logits, such as kd"
            )
        if set(roles) <= NETWORK_ROLES:
            raise RecipeError(
                f"objectives.{name}: {title} reads {' or '.join(roles)} of the teacher, and the "
                f"teacher {model} returns logits only. Expected a PyTorch network as the teacher. "
                "Use an objective on logits, such as kd"
            )
