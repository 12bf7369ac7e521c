"""Estimated duration of an estimator's own ``fit``, from fits on small parts of its data."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from instil.core import Scheme
from instil.data.samples import Samples, labelled_rows
from instil.data.splits import balanced_order
from instil.experiment.experiment import Experiment
from instil.experiment.fitted_student import fit_student
from instil.experiment.fitted_teacher import fit_teacher
from instil.experiment.trained_teachers import build_teacher
from instil.recipe.sections import TeacherConfig

NUM_ROWS = (256, 512)
"""Numbers of samples of the two fits that are timed."""
LARGEST_EXPONENT = 3.0
"""Largest growth of the duration with the number of samples, as a power."""


@dataclass(frozen=True)
class FitEstimate:
    """Estimated duration of a fit.

    Attributes:
        seconds: the estimate.
        note: sentence on its origin, without a full stop.
    """

    seconds: float
    note: str


def estimate_fit(
    stage: Experiment, data: Experiment, config: TeacherConfig, index: int
) -> FitEstimate:
    """Time fits on 256 and 512 samples, and extrapolate by a power of at least 1.

    Args:
        stage: experiment of the teacher's stage.
        data: experiment with the data of the teacher.
        config: section of the teacher.
        index: index of the teacher in the stage.

    Raises:
        RecipeError: if the data or their labels do not fit the teacher.
    """
    num_labelled = len(labelled_rows(data.splits.train))
    return extrapolate(
        lambda size: _seconds_of_fit(stage, data, config, index, size), num_labelled, config.model
    )


def estimate_student_fit(experiment: Experiment, scheme: Scheme, samples: Samples) -> FitEstimate:
    """Time fits of copies of a student on 256 and 512 samples, and extrapolate.

    Args:
        experiment: experiment of the stage.
        scheme: prepared scheme of the student, which is not changed.
        samples: training samples.
    """

    def seconds_of(size: int) -> float:
        rows = balanced_order(samples.label, seed=0)[:size].sort().values
        loader = experiment.loader(samples.subset(rows), shuffle=False)
        trial = copy.deepcopy(scheme)
        start = time.perf_counter()
        fit_student(trial, loader, len(experiment.splits.classes))
        return time.perf_counter() - start

    return extrapolate(seconds_of, len(samples), experiment.recipe.student.model)


def extrapolate(seconds_of: Callable[[int], float], num_samples: int, model: str) -> FitEstimate:
    """Extrapolate the duration of a fit from two fits on few samples.

    Args:
        seconds_of: function from a number of samples to the seconds of a fit on them.
        num_samples: number of all samples.
        model: name of the model, for the note.
    """
    sizes = [min(size, num_samples) for size in NUM_ROWS]
    small, large = (seconds_of(size) for size in sizes)
    if num_samples <= NUM_ROWS[-1]:
        return FitEstimate(large, f"{model}: the fit was timed on all training samples")
    exponent = math.log(max(large, 1e-9) / max(small, 1e-9)) / math.log(sizes[1] / sizes[0])
    # A constant overhead hides the growth in small fits, so that the estimate is at least linear.
    exponent = min(max(exponent, 1.0), LARGEST_EXPONENT)
    note = (
        f"{model}: the time of the fit is extrapolated from fits on {sizes[0]} and "
        f"{sizes[1]} of {num_samples:,} training samples"
    )
    return FitEstimate(large * (num_samples / sizes[1]) ** exponent, note)


def _seconds_of_fit(
    stage: Experiment, data: Experiment, config: TeacherConfig, index: int, size: int
) -> float:
    train = data.splits.train
    rows = labelled_rows(train)
    # Balanced, because an estimator may refuse samples of one class.
    rows = rows[balanced_order(train.label[rows], seed=0)[:size]].sort().values
    splits = dataclasses.replace(data.splits, train=train.subset(rows))
    with torch.random.fork_rng():
        net = build_teacher(stage, config, index)
        start = time.perf_counter()
        fit_teacher(dataclasses.replace(data, splits=splits), net)
        return time.perf_counter() - start
