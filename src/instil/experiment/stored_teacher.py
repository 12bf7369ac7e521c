"""Recorded answers, and what they depend on."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from instil.experiment.experiment import Experiment
from instil.experiment.trained_teachers import cache_path, data_fingerprint
from instil.networks.factory import code_of
from instil.networks.remote import ANSWER_OPTIONS
from instil.recipe.errors import RecipeError, error_context
from instil.recipe.sections import Recipe, StoreConfig, TeacherConfig
from instil.store import reader
from instil.teachers.recorded import Recorded


def stored_teacher(stage: Experiment, section: str = "train") -> Recorded:
    """The teacher whose answers the recipe's ``store`` holds."""
    return Recorded(open_store(stage), reader.row_checksums, section)


def open_store(stage: Experiment) -> reader.Store:
    """The recorded answers that a recipe learns from. Raises ValueError where they are of other weights, data or views, and says what has changed."""
    recipe = stage.recipe
    assert recipe.store is not None
    check_recordable(recipe)
    with error_context("store.path"):
        found = reader.Store(recipe.store.path)
    wanted = store_fingerprint(stage, recipe.store)
    theirs = found.manifest.binding.get("weights", [])
    if isinstance(theirs, list) and len(theirs) == len(
        wanted["weights"]
    ):  # the file of a teacher's weights need not be here
        wanted["weights"] = [
            mine or their for mine, their in zip(wanted["weights"], theirs, strict=True)
        ]
    with error_context("store.path"):
        found.check(wanted)
    return found


def check_recordable(recipe: Recipe) -> None:
    """RecipeError where what the student learns from is not known before it does."""
    if recipe.stages or recipe.data.surrogate is not None or recipe.data.augment.mixup:
        other = (
            "stages"
            if recipe.stages
            else "data.surrogate"
            if recipe.data.surrogate is not None
            else "data.augment.mixup"
        )
        raise RecipeError(
            f"store: recorded answers belong to one teacher and to training samples as the loader gives them; leave {other} out"
        )


def store_fingerprint(stage: Experiment, store: StoreConfig) -> dict[str, Any]:
    """What recorded answers depend on: the teachers with their weights and code, the task's call, the data and how they are changed, the codec."""
    recipe = stage.recipe
    teachers = [_identity(spec) for spec in recipe.teachers]
    return {
        "task": recipe.task.model_dump(mode="json"),
        "data": {
            "name": recipe.data.name,
            **recipe.data.options,
            "contents": data_fingerprint(stage),
        },
        "augmentation": recipe.data.augment.model_dump(exclude={"partner"}),
        "teacher": teachers[0] if len(teachers) == 1 else teachers,
        "ensemble": None if recipe.ensemble is None else recipe.ensemble.model_dump(mode="json"),
        "weights": [_weights(stage, spec, number) for number, spec in enumerate(recipe.teachers)],
        "code": [code_of(spec.model, Path(recipe.folder)) for spec in recipe.teachers],
        "store": store.model_dump(exclude={"path"}),
        "precision": recipe.train.precision,
    }


def _identity(spec: TeacherConfig) -> dict[str, Any]:
    """What the recipe says of a teacher, but not when it is asked; of one behind a server not where and how either."""
    said = spec.model_dump(mode="json", exclude={"precompute"})
    return (
        said | {"options": {name: said["options"].get(name) for name in ANSWER_OPTIONS}}
        if spec.remote
        else said
    )


def _weights(stage: Experiment, spec: TeacherConfig, number: int) -> str | None:
    """The hash of a file of weights, or of all that the training of a teacher depends on; None where its file is not at hand, or it needs none."""
    if spec.is_trained or spec.remote:
        return None
    if spec.weights is None:
        return cache_path(stage, spec, number).stem
    try:
        path = stage.recipe.locate(spec.weights)
    except FileNotFoundError:
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
