"""Signals of teacher, student and data, which are the same for all methods."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from instil.core import Net, Teacher
from instil.data.stream_splits import label_count, sample_count
from instil.early_signals.capacity import operation_ratio, parameter_ratio
from instil.early_signals.confidence import (
    expected_calibration_error,
    label_agreement,
    normalized_entropy,
    unsure_share,
)
from instil.early_signals.levels import last_level, level_similarities
from instil.early_signals.measured import (
    MeasuredSamples,
    item_probabilities,
    labelled_training_samples,
)
from instil.early_signals.probe import linear_probe_accuracy
from instil.experiment.experiment import Experiment

MAX_PROBE_WIDTH = 2048
"""Features above which the linear probe is too slow for a signal."""


@dataclass(frozen=True)
class TaskSignals:
    """Signals before trials. A signal that is not defined for a task is None.

    Attributes:
        num_samples: validation samples of the measurement.
        teacher_score: headline metric of the teacher on them.
        label_agreement: share of validation items on which teacher and label agree.
        label_agreement_train: the same on labelled training samples of the student.
        entropy: mean entropy of the teacher, as a share of its maximum.
        calibration_error: expected calibration error of the teacher.
        unsure_share: share of items with a largest probability below 0.8.
        parameter_ratio: parameters of the teacher as a multiple of the student's.
        operation_ratio: multiply-adds of the teacher as a multiple of the student's.
        probe_accuracy: validation accuracy of a linear probe on the untrained student.
        labels_per_class: labelled training samples of the student per class.
        unlabelled_per_labelled: unlabelled training samples per labelled one.
        level_similarities: CKA of the levels of the untrained student with the teacher's.
    """

    num_samples: int = 0
    teacher_score: float | None = None
    label_agreement: float | None = None
    label_agreement_train: float | None = None
    entropy: float | None = None
    calibration_error: float | None = None
    unsure_share: float | None = None
    parameter_ratio: float | None = None
    operation_ratio: float | None = None
    probe_accuracy: float | None = None
    labels_per_class: float | None = None
    unlabelled_per_labelled: float | None = None
    level_similarities: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the signals as plain data."""
        return asdict(self) | {"level_similarities": list(self.level_similarities)}


def measure_task_signals(
    experiment: Experiment, student: Net, teacher: Teacher | None, is_trained: bool = True
) -> TaskSignals:
    """Measure all signals that do not depend on a method, on a few batches.

    Args:
        experiment: experiment of a stage, whose test split is not read.
        student: the untrained student.
        teacher: the teacher with all its roles; None without one.
        is_trained: whether the teacher has its final weights. Otherwise the signals of its outputs
            are None.
    """
    values: dict[str, Any] = dict(label_signals(experiment))
    validation = MeasuredSamples(experiment, experiment.splits.validation, student, teacher)
    labelled = labelled_training_samples(experiment)
    train = None
    if labelled is not None:
        train = MeasuredSamples(experiment, labelled, student, teacher)
        values["probe_accuracy"] = _probe_accuracy(train, validation)
    if teacher is not None:
        values |= capacity_signals(student, teacher, validation)
    if teacher is not None and is_trained:
        values |= teacher_signals(experiment, teacher, validation)
        levels = level_similarities(validation.student, validation.teacher)
        values["level_similarities"] = tuple(levels)
        items = None
        if train is not None:
            items = item_probabilities(experiment.task.kind, train.batches, train.teacher)
        values["label_agreement_train"] = None if items is None else label_agreement(*items)
    return TaskSignals(num_samples=validation.num_samples, **values)


def label_signals(experiment: Experiment) -> dict[str, float]:
    """Return labels per class, and unlabelled samples per labelled one, of the student.

    Args:
        experiment: experiment of a stage.
    """
    if experiment.recipe.data.surrogate is not None:
        return {}
    samples = experiment.train_data(experiment.recipe.seeds[0])
    num_samples = sample_count(samples)
    num_labelled = label_count(samples)
    if not num_samples or not num_labelled:
        return {}
    signals = {"unlabelled_per_labelled": (num_samples - num_labelled) / num_labelled}
    if experiment.task.kind == "single" and experiment.splits.classes:
        signals["labels_per_class"] = num_labelled / len(experiment.splits.classes)
    return signals


def teacher_signals(
    experiment: Experiment, teacher: Teacher, validation: MeasuredSamples
) -> dict[str, float | None]:
    """Return score, agreement, entropy and calibration of a teacher.

    Args:
        experiment: experiment of a stage.
        teacher: the trained teacher.
        validation: validation samples with its outputs.
    """
    signals: dict[str, float | None] = {}
    task = experiment.task
    if task.can_score(validation.teacher[0], experiment.splits.classes):
        metrics, _ = task.measure(teacher, validation.batches)
        # Scores of generated answers are not among them.
        if task.headline in metrics:
            signals["teacher_score"] = float(metrics[task.headline])
    items = item_probabilities(task.kind, validation.batches, validation.teacher)
    if items is None:
        return signals
    probabilities, _ = items
    return signals | {
        "label_agreement": label_agreement(*items),
        "entropy": normalized_entropy(probabilities),
        "calibration_error": expected_calibration_error(*items),
        "unsure_share": unsure_share(probabilities),
    }


def capacity_signals(
    student: nn.Module, teacher: nn.Module, validation: MeasuredSamples
) -> dict[str, float | None]:
    """Return the ratios of parameters and multiply-adds of teacher and student.

    Args:
        student: the student.
        teacher: the teacher.
        validation: samples that both read.
    """
    return {
        "parameter_ratio": parameter_ratio(student, teacher),
        "operation_ratio": operation_ratio(student, teacher, validation.batches[0]),
    }


def _probe_accuracy(train: MeasuredSamples, validation: MeasuredSamples) -> float | None:
    """Return the accuracy of a linear probe; None for other tasks than classification."""
    train_label = train.class_labels()
    label = validation.class_labels()
    train_features = last_level(train.student)
    features = last_level(validation.student)
    if train_label is None or label is None or train_features is None or features is None:
        return None
    # Levels of several views or frames may have a row for each of them.
    if len(train_features) != len(train_label) or len(features) != len(label):
        return None
    if train_features.shape[1] > MAX_PROBE_WIDTH or train_features.shape[1] != features.shape[1]:
        return None
    return linear_probe_accuracy(train_features, train_label, features, label)
