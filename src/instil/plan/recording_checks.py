"""Checks of a recipe before the outputs of its teacher are recorded."""

from __future__ import annotations

from instil.core import Objectives
from instil.experiment.filtered_teachers import check_predictions_by_index
from instil.experiment.scheme_checks import check_changed_inputs, check_teacher_reads_texts
from instil.experiment.stored_teacher import check_recordable
from instil.recipe.errors import RecipeError
from instil.recipe.sections import Recipe, StoreConfig
from instil.store.codecs import CODEC_READERS, encoded_roles
from instil.store.files import zstandard_library


def recorded_section(recipe: Recipe) -> StoreConfig:
    """Return the section ``store`` of a recipe whose teacher can be recorded.

    Args:
        recipe: recipe of the recording.

    Raises:
        RecipeError: if the teacher cannot be recorded, or not in this folder.
        ImportError: if the library of the compression is missing.
    """
    if recipe.store is None:
        raise RecipeError(
            "store: missing. Expected the folder for the teacher's outputs. "
            "Set it, such as store.path=outputs"
        )
    if "://" in recipe.store.path:
        raise RecipeError(
            "store.path: teacher outputs can only be recorded in a local folder. Expected a path, "
            f"got {recipe.store.path}. Record to a local folder, then copy it there"
        )
    # The first shard would be written after the training of the teacher.
    zstandard_library()
    if not recipe.teachers:
        raise RecipeError("teacher: missing. Expected the teacher whose outputs are recorded")
    check_recordable(recipe)
    check_teacher_reads_texts(recipe)
    check_changed_inputs(recipe)
    check_predictions_by_index(recipe)
    return recipe.store


def check_codec(objectives: Objectives, store: StoreConfig) -> None:
    """Check that the codec keeps the outputs that the objectives need.

    Args:
        objectives: objectives of the student; what they read is resolved again.
        store: section of the recipe.

    Raises:
        RecipeError: if an objective needs outputs that the codec does not keep.
    """
    for name, objective in objectives.named():
        recorded = encoded_roles(objective.reads["teacher"], store.codec)
        try:
            objective.resolve(objective.reads["student"], recorded)
        except ValueError as error:
            readers = " or ".join(CODEC_READERS[store.codec])
            raise RecipeError(
                f"store.codec: objectives.{name} reads all logits of the teacher, and "
                f"'{store.codec}' records some classes only. Expected exact or float16. Set "
                f"store.codec: exact, or use the objective {readers}"
            ) from error
