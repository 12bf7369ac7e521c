"""Schemes of a recipe, and the samples that they learn from."""

from __future__ import annotations

import inspect
from typing import Any

from instil import catalogue
from instil.capabilities import RetokenizesTexts, ServesStudent, VerifiesTexts
from instil.core import Net, Objectives, Scheme, Teacher
from instil.data import labels
from instil.data.aligned import AlignedRows
from instil.data.retokenization import Retokenizer
from instil.data.samples import Samples
from instil.data.streams import Stream
from instil.data.token_verifier import TokenVerifier
from instil.experiment.class_alignment import check_earlier_classes, select_shared_classes
from instil.experiment.experiment import Experiment
from instil.experiment.filtered_teachers import check_predictions_by_index
from instil.experiment.fitted_student_checks import check_fitted_student
from instil.experiment.foreign_teachers import check_foreign_teachers
from instil.experiment.label_counts import set_label_counts
from instil.experiment.networks import build_network
from instil.experiment.padded_heads import leave_out_padding
from instil.experiment.scheme_checks import (
    check_changed_inputs,
    check_label_objectives,
    check_one_text_per_row,
    check_surrogate,
    check_teacher_reads_texts,
    check_token_alignment,
    check_unread_guidance,
)
from instil.experiment.student_writer import StudentWriter
from instil.generation.options import Sampling
from instil.recipe import build_objectives, build_options, error_context, label_objectives
from instil.recipe.errors import RecipeError
from instil.recipe.schedules import refuse_schedules
from instil.recipe.sections import ModelConfig, SchemeConfig, TeacherConfig


def build_scheme(experiment: Experiment, student: Net, teacher: Teacher | None) -> Scheme:
    """Build the scheme that trains the student of a stage.

    Args:
        experiment: experiment of the stage.
        student: the student.
        teacher: its teacher; None: the stage has none.

    Raises:
        RecipeError: for objectives and options that do not fit each other, the task or the data.
    """
    recipe = experiment.recipe
    objectives = build_objectives(recipe.objectives, recipe.balance)
    experiment.task.check(objectives)
    check_token_alignment(recipe, objectives)
    check_label_objectives(recipe, objectives)
    check_surrogate(recipe)
    check_teacher_reads_texts(recipe)
    check_changed_inputs(recipe)
    check_one_text_per_row(recipe)
    check_predictions_by_index(recipe)
    check_earlier_classes(experiment, objectives)
    select_shared_classes(experiment, objectives)
    leave_out_padding(experiment, objectives)
    check_foreign_teachers(recipe, objectives)
    check_fitted_student(experiment, student, objectives)
    return _build(recipe.scheme, experiment, student, teacher, objectives, "scheme")


def build_teacher_scheme(experiment: Experiment, net: Net, teacher_config: TeacherConfig) -> Scheme:
    """Build the scheme that trains a teacher on labels before the stage.

    Args:
        experiment: data of the teacher.
        net: the teacher.
        teacher_config: section of the teacher.

    Raises:
        RecipeError: for options that do not fit.
    """
    check_unread_guidance(net.model)
    objectives = label_objectives(experiment.recipe, *experiment.task.label_objectives)
    return _build(teacher_config.scheme, experiment, net, None, objectives, "teacher.scheme")


def samples_for_objectives(objectives: Objectives, samples: Samples) -> Samples:
    """Return the samples that objectives learn from: labelled ones, or pairs, if all need them."""
    # A stream is not read before training; losses leave its unlabelled samples out.
    if isinstance(samples, Stream):
        return samples
    items = [objective.items for _, objective in objectives.named()]
    if all(choice.labelled for choice in items):
        samples = labels.labelled(samples)
    if all(choice.paired for choice in items):
        samples = labels.paired(samples)
    return samples


def samples_for_scheme(scheme: Scheme, samples: Samples) -> Samples:
    """Return the training samples of a scheme.

    These are the labelled samples if every loss of the scheme needs a label, the pairs if every
    loss needs pairs, else all.
    """
    # A scheme with its own counts has further losses, which may learn from all samples.
    if type(scheme).counts is Scheme.counts:
        return samples_for_objectives(scheme.objectives, samples)
    return samples


def _build(
    config: SchemeConfig,
    experiment: Experiment,
    student: Net,
    teacher: Teacher | None,
    objectives: Objectives,
    path: str,
) -> Scheme:
    scheme_class: type[Scheme] = catalogue.find("scheme", config.type)
    parameters = inspect.signature(scheme_class).parameters
    options = build_options("scheme", config.type, config.options, path)
    parts: dict[str, Any] = {"student": student, "objectives": objectives}
    if "teacher" in parameters:
        parts["teacher"] = teacher
    elif teacher is not None:
        raise RecipeError(
            f"{path}: {scheme_class.__name__} takes no teacher. Set teacher: null in the recipe"
        )
    _build_networks(options, experiment, path)
    if "sampling" in parameters:
        sampling = options.get("sampling", parameters["sampling"].default)
        # Generated texts end like those of the data and have only their tokens.
        if isinstance(sampling, Sampling):
            facts = experiment.facts
            options["sampling"] = sampling.fill(facts.get("end"), facts.get("vocabulary"))
    # A table per training sample has a row for every index of the data.
    if "num_samples" in parameters and options.get("num_samples") is None:
        options["num_samples"] = int(experiment.splits.train.index.max()) + 1
    try:
        with error_context(path):
            scheme = scheme_class(**parts, **options)
    except TypeError as error:
        refuse_schedules(error, options, path)
        raise
    _connect_texts(scheme, experiment)
    # A training counts the labels of its seed again; they differ where few labels are visible.
    set_label_counts(scheme, experiment.samples)
    return scheme


def _connect_texts(scheme: Scheme, experiment: Experiment) -> None:
    """Set what a scheme with generated texts needs of the data: tokens, writer and verifier."""
    if isinstance(scheme, RetokenizesTexts) and isinstance(experiment.splits.train, AlignedRows):
        with error_context(""):
            scheme.set_retokenizer(Retokenizer(experiment.splits.train))
    if isinstance(scheme, ServesStudent) and scheme.needs_student_writer():
        scheme.set_student_writer(StudentWriter(experiment))
    # Without a verifier in the data, the scheme raises an error that names the option.
    if isinstance(scheme, VerifiesTexts) and scheme.needs_verifier():
        train: Any = experiment.splits.train
        if getattr(train, "verifier", None) is not None:
            scheme.set_verifier(TokenVerifier(train))


def _build_networks(options: dict[str, Any], experiment: Experiment, path: str) -> None:
    """Replace the sections of further networks, such as a generator, by these networks."""
    for name, value in options.items():
        parts = value if isinstance(value, list) else [value]
        for part in parts:
            if isinstance(part, ModelConfig) and part.is_fitted:
                raise RecipeError(
                    f"{path}.{name}: {part.model} has no gradients. Expected a network here; "
                    "estimators are teachers or students"
                )
        if isinstance(value, ModelConfig):
            options[name] = build_network(value, experiment, f"{path}.{name}")
        elif isinstance(value, list) and value and isinstance(value[0], ModelConfig):
            options[name] = [
                build_network(config, experiment, f"{path}.{name}.{index}")
                for index, config in enumerate(value)
            ]
