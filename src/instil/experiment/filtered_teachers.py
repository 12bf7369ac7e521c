"""Check of recipes with a teacher that has predictions for the training samples only."""

from __future__ import annotations

from instil import catalogue
from instil.cards import has_tag
from instil.recipe.errors import RecipeError
from instil.recipe.sections import Recipe


def check_predictions_by_index(recipe: Recipe) -> None:
    """Check a recipe whose teacher has predictions for the training samples only.

    Args:
        recipe: one stage.

    Raises:
        RecipeError: if the student's scheme is one for teachers, or if the student sees samples
            without recorded predictions.
    """
    if has_tag(catalogue.find("scheme", recipe.scheme.type), "predictions_by_index"):
        raise RecipeError(
            f"scheme: {recipe.scheme.type} trains a teacher. Expected it in teacher.scheme, got it "
            f"for the student. Set teacher.scheme: {recipe.scheme.type}"
        )
    recording = [
        config
        for config in recipe.teachers
        if not (config.ready or config.earlier)
        and has_tag(catalogue.find("scheme", config.scheme.type), "predictions_by_index")
    ]
    files = [config for config in recipe.teachers if config.by_index]
    if not recording and not files:
        return
    conflicts = {
        "store": bool(recording) and recipe.store is not None,
        "teacher.precompute": any(config.precompute for config in recording),
        "teacher.data.name": any(
            config.data is not None and config.data.name for config in [*recording, *files]
        ),
        "data.surrogate": recipe.data.surrogate is not None,
        "data.augment.mixup": recipe.data.augment.mixup,
    }
    origin = f"the teacher {files[0].model}" if files else ""
    if recording:
        origin = f"the teacher's scheme {recording[0].scheme.type}"
    for key, is_set in conflicts.items():
        if is_set:
            raise RecipeError(
                f"{key}: {origin} returns predictions recorded for the recipe's training samples. "
                f"Expected no other samples. Remove {key}"
            )
