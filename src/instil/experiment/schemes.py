"""Schemes of a recipe."""

from __future__ import annotations

import inspect
from typing import Any

from instil import catalogue
from instil.capabilities import SynthesizesImages
from instil.core import Net, Objectives, Scheme, Teacher
from instil.data import labels
from instil.data.samples import Samples
from instil.experiment.experiment import Experiment
from instil.experiment.filtered_teachers import check_predictions_by_index
from instil.experiment.networks import build_network
from instil.experiment.scheme_checks import _check_labels, check_teacher_reads_texts
from instil.generation.options import Sampling
from instil.recipe import (
    build_objectives,
    build_options,
    error_context,
    label_objectives,
)
from instil.recipe.errors import RecipeError
from instil.recipe.sections import (
    ModelConfig,
    SchemeConfig,
    TeacherConfig,
)


def build_scheme(experiment: Experiment, student: Net, teacher: Teacher | None) -> Scheme:
    """The scheme of a recipe around a student; errors begin with ``scheme`` or the objective's name."""
    recipe = experiment.recipe
    objectives = build_objectives(recipe.objectives, recipe.balance)
    experiment.task.check(objectives)
    _check_labels(recipe, objectives)
    makes, images = (
        issubclass(catalogue.find("scheme", recipe.scheme.type), SynthesizesImages),
        recipe.data.surrogate,
    )
    if makes != (images is not None and images.name == "scheme"):
        wrong = (
            "makes its images itself, so this must be scheme"
            if makes
            else "makes no images: noise, blobs or another source"
        )
        raise RecipeError(f"data.surrogate: the scheme {recipe.scheme.type} {wrong}")
    check_teacher_reads_texts(recipe)
    check_predictions_by_index(recipe)
    return _scheme(recipe.scheme, experiment, student, teacher, objectives, "scheme")


def build_teacher_scheme(experiment: Experiment, net: Net, spec: TeacherConfig) -> Scheme:
    """The scheme by which a teacher is trained on labels before it teaches; errors begin with ``teacher.scheme``."""
    return _scheme(
        spec.scheme,
        experiment,
        net,
        None,
        label_objectives(experiment.recipe, *experiment.task.label_objectives),
        "teacher.scheme",
    )


def _scheme(
    method: SchemeConfig,
    experiment: Experiment,
    student: Net,
    teacher: Teacher | None,
    objectives: Objectives,
    path: str,
) -> Scheme:
    """A scheme with its options, whose nets are built too."""
    kind = catalogue.find("scheme", method.type)
    options = build_options("scheme", method.type, method.options, path)
    parts: dict[str, Any] = {"student": student, "objectives": objectives}
    if "teacher" in inspect.signature(kind).parameters:
        parts["teacher"] = teacher
    elif teacher is not None:
        raise RecipeError(
            f"{path}: {kind.__name__} takes no teacher; leave the recipe's teacher out (teacher=null)"
        )
    for name, given in options.items():
        if isinstance(given, ModelConfig):
            options[name] = build_network(given, experiment, f"{path}.{name}")
        elif isinstance(given, list) and given and isinstance(given[0], ModelConfig):
            options[name] = [
                build_network(one, experiment, f"{path}.{name}.{number}")
                for number, one in enumerate(given)
            ]
    if "sampling" in inspect.signature(kind).parameters:
        sampling = options.get("sampling", inspect.signature(kind).parameters["sampling"].default)
        if isinstance(sampling, Sampling):
            facts = experiment.facts
            options["sampling"] = sampling.fill(facts.get("end"), facts.get("vocabulary"))
    # A table per training sample has a row for every index of the data.
    if "num_samples" in inspect.signature(kind).parameters and options.get("num_samples") is None:
        options["num_samples"] = int(experiment.splits.train.index.max()) + 1
    with error_context(path):
        made: Scheme = kind(**parts, **options)
    return made


def samples_for_objectives(objectives: Objectives, samples: Samples) -> Samples:
    """The samples from which these objectives learn: those with a label, unless one needs none."""
    needed = all(objective.items.labelled for _, objective in objectives.named())
    return labels.labelled(samples) if needed else samples


def samples_for_scheme(scheme: Scheme, samples: Samples) -> Samples:
    """The samples from which a scheme learns: those with a label, where nothing but its objectives counts samples, and none counts the others."""
    return (
        samples_for_objectives(scheme.objectives, samples)
        if type(scheme).counts is Scheme.counts
        else samples
    )
