"""Checks of a recipe whose student is trained by its own ``fit`` instead of gradients."""

from __future__ import annotations

import copy
from typing import Any

import torch

from instil import catalogue
from instil.capabilities import GivesRealTargets, GivesSoftTargets
from instil.core import Batch, Net, Objective, Objectives, Scheme
from instil.data.labels import num_labelled
from instil.data.samples import Samples
from instil.data.streams import Stream
from instil.experiment.experiment import Experiment
from instil.experiment.fitted_student import fit_targets
from instil.experiment.fitted_teacher import check_estimator_kind, recorded_inputs
from instil.networks.sklearn_model import SklearnModel
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.recipe import label_objectives
from instil.recipe.errors import RecipeError

OBJECTIVES = {
    "single": "kd, cross_entropy or label_smoothing",
    "real": "logit_mse or mean_squared_error",
}
"""Objectives of a fitted student by kind of labels, for messages."""


def check_fitted_student(experiment: Experiment, student: Net, objectives: Objectives) -> None:
    """Check that nothing in a stage needs gradients of a student without any.

    Args:
        experiment: experiment of the stage.
        student: the student; a network with gradients is not checked.
        objectives: its objectives.

    Raises:
        RecipeError: for a task, data, a scheme or objectives that need gradients, and for an
            estimator of the wrong kind or without sample weights.
    """
    model = student.model
    if not isinstance(model, SklearnModel):
        return
    _check_estimator(experiment, model)
    _check_sections(experiment)
    _check_objectives(experiment, objectives)
    samples = experiment.samples
    if model.accepts_weights or isinstance(samples, Stream):
        return
    losses = {"student": objectives}
    for name in experiment.recipe.baselines:
        names = catalogue.find("baseline", name).label_objectives(experiment.task)
        losses[f"baselines: {name}: student"] = label_objectives(experiment.recipe, *names)
    for path, one in losses.items():
        if _needs_weights(one, experiment.train_data(experiment.recipe.seeds[0])):
            raise RecipeError(f"{path}.{model.no_weights()}")


def check_fit(experiment: Experiment, scheme: Scheme, batch: Batch) -> None:
    """Check options of an estimator student by a fit of a copy on one batch.

    The targets are those of a teacher without preferences, because the teacher may not be trained
    yet. Without a teacher the first fit of the run is the check.

    Args:
        experiment: experiment of the stage.
        scheme: prepared scheme.
        batch: batch of the student.

    Raises:
        RecipeError: if the estimator cannot be fitted.
    """
    model = scheme.student.model
    assert isinstance(model, SklearnModel)
    if scheme.teacher is None:
        return
    with torch.no_grad(), recorded_inputs(scheme.student) as inputs:
        outputs = scheme.student(batch)
    teacher = {"logits": torch.zeros_like(outputs["logits"]).cpu()}
    whole = {"label": batch["label"].cpu()}
    trial = copy.deepcopy(model)
    fit_targets(trial, scheme.objectives, inputs[0], teacher, whole, model.outputs)


def _check_estimator(experiment: Experiment, model: SklearnModel) -> None:
    """Check the estimator against task and labels."""
    recipe = experiment.recipe
    spec = recipe.student.model
    if recipe.student.earlier:
        raise RecipeError(
            "student.model: the student of the earlier stage is an estimator, whose fit cannot be "
            "continued. Expected a network there, or a new student in this stage"
        )
    if tuple(experiment.task.inputs) != ("features",):
        raise RecipeError(
            f"student.model: {spec} is a student of table rows only. Expected the task "
            f"tabular_classification or tabular_regression, got {recipe.task.name}. Use a network"
        )
    kind = experiment.task.kind
    if kind not in OBJECTIVES:
        raise RecipeError(
            f"student.model: {spec} learns one class per row. Expected labels of the kind single, "
            f"got {kind}. Use a network"
        )
    check_estimator_kind(model, kind, spec, "student.model")


def _check_sections(experiment: Experiment) -> None:
    """Check that no section of the recipe needs steps of a training."""
    recipe = experiment.recipe
    spec = recipe.student.model
    reason = f"the student {spec} is fitted once on all rows, without gradients or batches"
    if isinstance(experiment.samples, Stream):
        raise RecipeError(
            f"student.model: {reason}, and the training data are a stream. Expected data in memory"
        )
    if recipe.scheme.type != "offline":
        raise RecipeError(
            f"scheme: {recipe.scheme.type} trains in steps, and {reason}. Expected offline"
        )
    if recipe.balance is not None:
        raise RecipeError(f"balance: {reason}. Expected fixed weights. Remove balance")
    if recipe.data.sampler != "shuffled":
        raise RecipeError(f"data.sampler: {reason}. Expected shuffled. Remove data.sampler")


def _check_objectives(experiment: Experiment, objectives: Objectives) -> None:
    """Check that every objective gives fixed targets with a fixed weight."""
    kind = experiment.task.kind
    protocol: Any = GivesRealTargets if kind == "real" else GivesSoftTargets
    for name, objective in objectives.named():
        weight = objectives.weights[name]
        if not isinstance(objective, protocol):
            raise RecipeError(
                f"objectives.{name}: {type(objective).__name__} needs gradients of the student, "
                f"and {experiment.recipe.student.model} has none. Expected {OBJECTIVES[kind]}"
            )
        if objective.sample_weight is not None:
            raise RecipeError(
                f"objectives.{name}.sample_weight: depends on the outputs of a student in "
                "training, and this student is fitted once. Remove sample_weight"
            )
        if not isinstance(weight, (int, float)):
            raise RecipeError(
                f"objectives.{name}.weight: a student that is fitted once has no schedule. "
                "Expected a number"
            )
        if weight < 0:
            raise RecipeError(
                f"objectives.{name}.weight: sample weights of an estimator cannot be negative. "
                f"Expected at least 0, got {weight:g}"
            )
    if objectives.schedules:
        raise RecipeError(
            "objectives: a student that is fitted once has no schedule. Expected numbers as options"
        )


def _needs_weights(objectives: Objectives, samples: Samples) -> bool:
    """Whether the targets of objectives have different sample weights."""
    parts = [objective for _, objective in objectives.named()]
    if samples.kind == "real":
        return len(parts) > 1 and num_labelled(samples) < len(samples)
    return not all(_is_hard(part) for part in parts)


def _is_hard(objective: Objective) -> bool:
    return isinstance(objective, CrossEntropy) and objective.class_weights is None
