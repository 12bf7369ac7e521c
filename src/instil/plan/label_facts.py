"""Numbers of labels and samples that teacher, student and baselines learn from."""

from __future__ import annotations

from typing import Any

from instil import catalogue
from instil.core import Scheme
from instil.data.samples import Samples
from instil.data.stream_splits import label_count, sample_count
from instil.data.streams import Stream
from instil.experiment.experiment import Experiment
from instil.experiment.schemes import samples_for_objectives
from instil.experiment.teachers import teacher_training_data
from instil.recipe import build_objectives, label_objectives


def label_facts(experiment: Experiment) -> dict[str, Any]:
    """Count the labels of teacher and student, and the samples of each arm.

    Args:
        experiment: experiment of the whole recipe.

    Returns:
        Dictionary with four keys.

        ``student``: number of labelled training samples of the student.

        ``teachers``: one entry per teacher of the last stage that has any, with ``model``,
        ``data`` (name of the source), ``samples`` and ``labelled``. Both counts are None for a
        teacher that is not trained in the run, because they are unknown. ``labelled`` is also
        None if ``data.surrogate`` replaces the training data, whose labels must not be read.

        ``same_for_all_seeds``: whether every seed has the same labelled samples.

        ``samples_seen``: arm -> number of training samples in an epoch. It is smaller than the
        training set for an arm that learns from labels only. Empty for a stream, for which
        ``student`` and the counts of a teacher are None.
    """
    samples = experiment.stages[-1].train_data(experiment.recipe.seeds[0])
    num_student = label_count(samples)
    return {
        "student": num_student,
        "teachers": _facts_of_teachers(experiment),
        "same_for_all_seeds": experiment.label_seed is not None
        or num_student == sample_count(samples),
        "samples_seen": _samples_seen(experiment, samples),
    }


def _facts_of_teachers(experiment: Experiment) -> list[dict[str, Any]]:
    stages = [
        stage
        for stage in experiment.stages
        if any(not spec.earlier for spec in stage.recipe.teachers)
    ]
    if not stages:
        return []
    return [
        _teacher_facts(stages[-1], index)
        for index, spec in enumerate(stages[-1].recipe.teachers)
        if not spec.earlier
    ]


def _teacher_facts(stage: Experiment, index: int) -> dict[str, Any]:
    spec = stage.recipe.teachers[index]
    if spec.ready:
        return {"model": spec.model, "data": None, "samples": None, "labelled": None}
    teacher_data = teacher_training_data(stage, spec, index)
    train = teacher_data.splits.train
    # In data-free training the labels of the training data must not be read, even to count them.
    is_data_free = stage.recipe.data.surrogate is not None
    return {
        "model": spec.model,
        "data": teacher_data.recipe.data.name,
        "samples": sample_count(train),
        "labelled": None if is_data_free else label_count(train),
    }


def _samples_seen(experiment: Experiment, samples: Samples) -> dict[str, int]:
    """Number of training samples of each student arm, in the last stage."""
    if isinstance(samples, Stream):
        return {}
    stage = experiment.stages[-1].recipe
    seen: dict[str, int] = {}
    for arm in experiment.recipe.baselines:
        baseline = catalogue.find("baseline", arm)
        if not baseline.trains:
            seen[arm] = 0
            continue
        losses = label_objectives(stage, *baseline.label_objectives(experiment.task))
        sees_all = baseline.sees_unlabeled
        seen[arm] = len(samples if sees_all else samples_for_objectives(losses, samples))
    uses_labels_only = catalogue.find("scheme", stage.scheme.type).counts is Scheme.counts
    objectives = build_objectives(stage.objectives)
    seen["distilled"] = len(
        samples_for_objectives(objectives, samples) if uses_labels_only else samples
    )
    return seen
