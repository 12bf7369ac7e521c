"""Teacher of a recipe with a ``store``: recorded outputs, and all that they depend on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from instil.data.paths import MissingPath
from instil.data.samples import Samples
from instil.experiment.experiment import Experiment
from instil.experiment.outputs_version import OUTPUTS_VERSION
from instil.experiment.sample_digest import sample_digest
from instil.experiment.trained_teachers import cache_path, data_fingerprint
from instil.files.checksums import file_sha256
from instil.networks.factory import code_of
from instil.networks.remote import ANSWER_OPTIONS
from instil.recipe.errors import RecipeError, error_context
from instil.recipe.sections import Recipe, StoreConfig, TeacherConfig
from instil.store import reader
from instil.teachers.recorded import Recorded


def stored_teacher(experiment: Experiment, section: str = "train") -> Recorded:
    """Return the teacher that reads a section of the recipe's store."""
    return Recorded(open_store(experiment), reader.row_checksums, section)


def open_store(experiment: Experiment) -> reader.Store:
    """Open the store of a recipe.

    Raises:
        RecipeError: if there is no such store, if it was recorded with other weights, data or
            views, or if the recipe cannot use a store.
    """
    recipe = experiment.recipe
    assert recipe.store is not None
    check_recordable(recipe)
    with error_context("store.path"):
        store = reader.Store(recipe.store.path)
    expected = store_fingerprint(experiment, recipe.store)
    recorded_weights = store.manifest.binding.get("weights", [])
    # The file of a teacher's weights may be missing here: its recorded hash is valid then.
    if isinstance(recorded_weights, list) and len(recorded_weights) == len(expected["weights"]):
        expected["weights"] = [
            own or recorded
            for own, recorded in zip(expected["weights"], recorded_weights, strict=True)
        ]
    recorded_code = store.manifest.binding.get("code", [])
    # The same holds for a file of predictions.
    if isinstance(recorded_code, list) and len(recorded_code) == len(expected["code"]):
        expected["code"] = [
            recorded if config.by_index and not own else own
            for config, own, recorded in zip(
                recipe.teachers, expected["code"], recorded_code, strict=True
            )
        ]
    with error_context("store.path"):
        store.check(expected)
    return store


def evaluated_samples(experiment: Experiment) -> dict[str, Samples]:
    """Return the samples that teacher and students are evaluated on, by section of the store."""
    return {"validation": experiment.splits.validation, "test": experiment.splits.test}


def check_evaluated_samples(experiment: Experiment) -> None:
    """Check that the recorded scores of the teacher belong to data and metrics of the recipe.

    Raises:
        RecipeError: for other validation or test data than those of the recording, and for
            metrics of the recipe that it lacks.
    """
    if experiment.recipe.store is None:
        return
    manifest = open_store(experiment).manifest
    sections = manifest.sections
    scores = manifest.teacher.test
    missing = [name for name in experiment.recipe.metrics if scores and name not in scores]
    if missing:
        raise RecipeError(
            f"metrics.{missing[0]}: the store {experiment.recipe.store.path} has no such score of "
            "the teacher. Record again (instil record), which repeats only the scores"
        )
    for name, samples in evaluated_samples(experiment).items():
        section = sections.get(name)
        # Stores of earlier versions have no digest.
        if section is None or section.digest in (None, sample_digest(samples)):
            continue
        raise RecipeError(
            f"store.path: the {name} data or their labels have changed since the recording, so "
            "that the recorded scores of the teacher do not belong to them. Record again (instil "
            "record), which repeats only the outputs for these data"
        )


def check_recordable(recipe: Recipe) -> None:
    """Check that the inputs of the student are fixed before training.

    Raises:
        RecipeError: for stages, and for images that do not exist before training.
    """
    conflicts = {
        "stages": bool(recipe.stages),
        "data.surrogate": recipe.data.surrogate is not None,
        "data.augment.mixup": recipe.data.augment.mixup,
    }
    for key, is_set in conflicts.items():
        if is_set:
            raise RecipeError(
                "store: recorded outputs belong to one teacher and to the training samples of the "
                f"loader. Leave {key} out"
            )


def store_fingerprint(experiment: Experiment, store: StoreConfig) -> dict[str, Any]:
    """Return all that recorded outputs depend on.

    These are the teachers with their weights and code, the task, the data and their augmentation,
    and the options of the store. The version of the package's outputs is one of them.
    """
    recipe = experiment.recipe
    teachers = [_teacher_options(config) for config in recipe.teachers]
    return {
        "task": recipe.task.model_dump(mode="json"),
        "data": {
            "name": recipe.data.name,
            **recipe.data.options,
            "contents": data_fingerprint(experiment),
        },
        # A partner has keys of its own in the batch; the recorded sample stays as it is.
        "augmentation": recipe.data.augment.model_dump(exclude={"partner"}),
        "teacher": teachers[0] if len(teachers) == 1 else teachers,
        "ensemble": None if recipe.ensemble is None else recipe.ensemble.model_dump(mode="json"),
        "weights": [
            _weights_hash(experiment, config, index) for index, config in enumerate(recipe.teachers)
        ],
        "code": [
            code_of(config.model, Path(recipe.folder), config.options) for config in recipe.teachers
        ],
        "store": store.model_dump(exclude={"path"}),
        "precision": recipe.train.precision,
        "outputs_version": OUTPUTS_VERSION,
    }


def _teacher_options(config: TeacherConfig) -> dict[str, Any]:
    """Options of a teacher on which its outputs depend; not, for example, the URL of a server."""
    section = config.model_dump(mode="json", exclude={"precompute", "cpu_offload"})
    if config.remote:
        section["options"] = {name: section["options"].get(name) for name in ANSWER_OPTIONS}
    return section


def _weights_hash(experiment: Experiment, config: TeacherConfig, index: int) -> str | None:
    """Hash of a teacher's weights, or of all that its training depends on.

    None if the file is missing here, and for models that bring their weights.
    """
    if config.weights is None:
        return None if config.ready else cache_path(experiment, config, index).stem
    try:
        path = experiment.recipe.locate(config.weights)
    except MissingPath:
        return None
    if not path.is_file():
        return None
    # Weights with frozen parts are trained further, which depends on more than the file.
    return file_sha256(path) if config.ready else cache_path(experiment, config, index).stem
