"""Fingerprints of all that a job depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from instil import catalogue
from instil.capabilities import EvaluatesRobustness
from instil.data.surrogate_images import ForeignImages
from instil.experiment.experiment import Experiment
from instil.experiment.outputs_version import OUTPUTS_VERSION
from instil.experiment.sample_digest import sample_digest
from instil.experiment.stage_data import has_different_data
from instil.experiment.teachers import teacher_training_data
from instil.files.checksums import file_sha256
from instil.networks.factory import code_of
from instil.recipe import error_context, fingerprint, label_objective_configs
from instil.recipe.sections import ModelConfig, Recipe, TeacherConfig
from instil.store.manifest import read_manifest

SECTIONS = {
    "evaluate": (
        "task",
        "metrics",
        "headline",
        "data",
        "teacher",
        "ensemble",
        "store",
        "device",
    ),
    "baseline": ("task", "metrics", "headline", "data", "student", "train", "device"),
    "stage": (
        "task",
        "metrics",
        "headline",
        "data",
        "teacher",
        "ensemble",
        "store",
        "student",
        "scheme",
        "objectives",
        "balance",
        "train",
        "teacher_train",
        "device",
    ),
}
"""Sections of a recipe that the result of each kind of job depends on."""

VERSION_INPUT = "outputs of this version of instil"
"""Name of the version of the package's outputs among the fingerprints."""


def recipe_parts(experiment: Experiment, kind: str) -> list[Any]:
    """Return the sections of each stage that the result of a job depends on.

    Args:
        experiment: data and task of the recipe.
        kind: key of ``SECTIONS``.
    """
    parts: list[Any] = []
    for stage in experiment.stages:
        values = stage.recipe.model_dump(mode="json")
        parts.append({name: values[name] for name in SECTIONS[kind]})
    return parts


def evaluation_parts(experiment: Experiment) -> list[Any]:
    """Return what the metrics of every student depend on, in addition to ``recipe_parts``."""
    scheme = experiment.stages[-1].recipe.scheme
    kind = catalogue.find("scheme", scheme.type)
    # Such a scheme perturbs the test samples of all students.
    perturbs = issubclass(kind, EvaluatesRobustness)
    return [scheme.model_dump(mode="json") if perturbs else None]


def baseline_parts(experiment: Experiment, name: str) -> list[Any]:
    """Return what the training of a baseline depends on, in addition to the data.

    Args:
        experiment: data and task of the recipe.
        name: name of the baseline.
    """
    kind = catalogue.find("baseline", name)
    losses = label_objective_configs(experiment.recipe, *kind.label_objectives(experiment.task))
    # Data-free baselines have the objectives of the recipe.
    sections = recipe_parts(experiment, "stage" if kind.is_data_free else "baseline")
    parts = [sections, {key: loss.model_dump(mode="json") for key, loss in losses.items()}]
    if has_different_data(experiment.data_of_stages):
        # Then a baseline is trained in every stage, by the label losses of the stage.
        for stage in experiment.stages:
            names = kind.label_objectives(experiment.task)
            of_stage = label_objective_configs(stage.recipe, *names)
            parts.append({key: loss.model_dump(mode="json") for key, loss in of_stage.items()})
    return parts


def input_fingerprints(experiment: Experiment) -> dict[str, str]:
    """Return a fingerprint for everything that a recipe reads: data, the user's code and weights.

    Args:
        experiment: data and task of the recipe.
    """
    splits = experiment.splits
    with error_context("data"):
        inputs = {
            f"data ({name} split)": sample_digest(getattr(splits, name))
            for name in opened_splits(experiment)
        }
        inputs |= _stage_inputs(experiment)
    return inputs | side_data_fingerprints(experiment) | code_fingerprints(experiment.recipe)


def side_data_fingerprints(experiment: Experiment) -> dict[str, str]:
    """Return a fingerprint for the data of each section ``teacher.data`` and ``data.surrogate``.

    Data of teachers that need no training are left out, and so are generated images.

    Args:
        experiment: data and task of the recipe.
    """
    digests: dict[str, str] = {}
    for index, stage in enumerate(experiment.stages):
        path = f"stages.{index}." if experiment.recipe.stages else ""
        images = stage.samples if stage.recipe.data.surrogate is not None else None
        if isinstance(images, ForeignImages):
            digests[f"{path}data.surrogate"] = sample_digest(images.source)
        digests |= _teacher_data_fingerprints(stage, path)
    return digests


def _teacher_data_fingerprints(stage: Experiment, path: str) -> dict[str, str]:
    """Return the fingerprints of the data that the teachers of a stage are trained on."""
    digests: dict[str, str] = {}
    if stage.recipe.store is not None:
        return digests
    teachers = stage.recipe.teachers
    for index, config in enumerate(teachers):
        if config.ready or not _has_own_data(config):
            continue
        splits = teacher_training_data(stage, config, index).splits
        name = "teacher" if len(teachers) == 1 else f"teacher.{index}"
        # The validation samples may choose the weights of the teacher.
        parts = [sample_digest(splits.train), sample_digest(splits.validation)]
        digests[f"{path}{name}.data"] = fingerprint(parts)
    return digests


def code_fingerprints(recipe: Recipe) -> dict[str, str]:
    """Return a fingerprint for each module of the user, network, file of weights and store.

    The weights of recorded teachers are left out: their file may be missing, and the store has
    their hash. The version of the package's outputs is one of the fingerprints.

    Args:
        recipe: recipe that names them.
    """
    base = Path(recipe.folder)
    inputs = {VERSION_INPUT: str(OUTPUTS_VERSION)}
    for module in recipe.imports:
        inputs[f"imports ({module})"] = _digest(code_of(f"{module}:", base))
    for path, spec in _models(recipe, ""):
        inputs[f"{path}.model ({spec.model})"] = _digest(code_of(spec.model, base, spec.options))
        is_recorded = recipe.store is not None and isinstance(spec, TeacherConfig)
        if spec.weights is not None and not is_recorded:
            with error_context(f"{path}.weights"):
                weights = recipe.locate(spec.weights)
            inputs[f"{path}.weights ({spec.weights})"] = file_sha256(weights)
    return inputs | _store_inputs(recipe)


def _store_inputs(recipe: Recipe) -> dict[str, str]:
    """Return the fingerprint of the recorded outputs; empty before their recording."""
    if recipe.store is None:
        return {}
    with error_context("store.path"):
        try:
            manifest = read_manifest(recipe.store.path)
        except FileNotFoundError:
            return {}
    return {f"store ({recipe.store.path})": fingerprint(manifest.model_dump(mode="json"))}


def _stage_inputs(experiment: Experiment) -> dict[str, str]:
    """Return the fingerprints of the data of stages that differ from those of the last stage."""
    digests: dict[str, str] = {}
    for index, data in enumerate(experiment.data_of_stages):
        if data.splits is experiment.splits:
            continue
        for name in ("train", "validation", "test"):
            # Equal samples have equal digests, which are cached.
            samples = getattr(data.splits, name)
            digests[f"stages.{index}.data ({name} split)"] = sample_digest(samples)
    return digests


def opened_splits(experiment: Experiment) -> tuple[str, ...]:
    """Return the splits that a run reads.

    Training images are not read where ``data.surrogate`` replaces them, unless a teacher is trained
    on them.

    Args:
        experiment: data and task of the recipe.
    """
    needs_training = False
    for stage in experiment.stages:
        for config in stage.recipe.teachers:
            needs_training = needs_training or not (config.ready or _has_own_data(config))
    if experiment.recipe.data.surrogate is not None and not needs_training:
        return ("validation", "test")
    return ("train", "validation", "test")


def _has_own_data(config: TeacherConfig) -> bool:
    """Whether a teacher is trained on the data of another source than the student."""
    return config.data is not None and config.data.name is not None


def _models(value: Any, path: str) -> Iterator[tuple[str, ModelConfig]]:
    """Yield every network that a recipe describes, with its path."""
    if isinstance(value, ModelConfig):
        yield path, value
    for name, item in _children(value):
        yield from _models(item, f"{path}.{name}" if path else name)


def _children(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, BaseModel):
        return [(name, getattr(value, name)) for name in type(value).model_fields]
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, (list, tuple)):
        return [(str(index), item) for index, item in enumerate(value)]
    return []


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
