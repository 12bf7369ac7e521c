"""Folds of the labelled samples, for the score of a trial where data are few."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from instil.data.labels import few_labels
from instil.data.samples import labelled_rows
from instil.data.streams import Stream
from instil.experiment.experiment import Experiment
from instil.recipe.sections import Recipe

SMALLEST_FOLD = 2
"""Smallest number of labelled samples of a fold."""


def check_folds(experiment: Experiment, num_folds: int) -> None:
    """Check that the labelled training samples can be divided into folds.

    Raises:
        ValueError: for a stream, surrogate images, or too few labelled samples.
    """
    if isinstance(experiment.splits.train, Stream) or experiment.recipe.data.surrogate is not None:
        raise ValueError(
            "--folds: a stream and surrogate images have no labelled samples to divide. Expected "
            "labelled training samples in memory. Remove --folds"
        )
    recipe = experiment.recipe
    if recipe.data.num_labeled is not None:
        count = recipe.data.num_labeled
    else:
        count = len(labelled_rows(experiment.splits.train))
    if count < SMALLEST_FOLD * num_folds:
        raise ValueError(
            f"--folds: {num_folds} folds of {count} labelled samples. Expected at least "
            f"{SMALLEST_FOLD} samples in each fold. Use fewer folds"
        )


def fold_experiments(experiment: Experiment, recipe: Recipe, num_folds: int) -> list[Experiment]:
    """Return an experiment for each fold: its validation samples are the fold.

    The labelled training samples are divided into folds that are balanced over the classes. Each
    training has the other folds and all samples without a label. The test samples are unchanged.

    Args:
        experiment: experiment of the search.
        recipe: recipe of a trial; its first seed chooses the labelled samples.
        num_folds: number of folds.
    """
    samples = experiment.splits.train
    seed = recipe.seeds[0] if experiment.label_seed is None else experiment.label_seed
    if recipe.data.num_labeled is not None:
        samples = few_labels(samples, recipe.data.num_labeled, seed)
    # The labels are already chosen: the number of a fold's training would be smaller.
    data = recipe.data.model_copy(update={"num_labeled": None})
    own = recipe.model_copy(update={"data": data})
    experiments = []
    for held_out in _folds(labelled_rows(samples), samples.label, num_folds):
        is_held_out = torch.zeros(len(samples), dtype=torch.bool)
        is_held_out[held_out] = True
        splits = dataclasses.replace(
            experiment.splits,
            train=samples.subset((~is_held_out).nonzero().flatten()),
            validation=samples.subset(held_out),
        )
        stages = tuple(
            dataclasses.replace(stage, splits=splits) for stage in experiment.data_of_stages
        )
        experiments.append(
            dataclasses.replace(experiment, recipe=own, splits=splits, data_of_stages=stages)
        )
    return experiments


def _folds(rows: Tensor, label: Tensor, num_folds: int) -> list[Tensor]:
    """Divide rows into folds, which are the same for all trials."""
    order = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(num_folds))]
    if label.ndim == 1:
        # In the order of the classes, so that every fold has its share of each class.
        order = order[label[order].argsort(stable=True)]
    return [order[index::num_folds] for index in range(num_folds)]


def mean_metrics(
    metrics: Sequence[Mapping[str, float]], weights: Sequence[float]
) -> dict[str, float]:
    """Return the weighted mean of each metric that all entries have.

    Args:
        metrics: metrics of each evaluation.
        weights: weight of each evaluation, such as its number of samples.

    Example:
        >>> mean_metrics([{"accuracy": 0.5}, {"accuracy": 1.0}], [3, 1])
        {'accuracy': 0.625}
    """
    total = sum(weights)
    names = [name for name in metrics[0] if all(name in one for one in metrics)]
    means = {}
    for name in names:
        pairs = zip(metrics, weights, strict=True)
        means[name] = sum(one[name] * weight for one, weight in pairs) / total
    return means


def mean_curve(curves: Sequence[Sequence[Sequence[float]]]) -> list[list[float]]:
    """Return the mean of the validation scores of several trainings at each step.

    Args:
        curves: pairs of step and score of each training.

    Example:
        >>> mean_curve([[[5, 0.5], [10, 1.0]], [[5, 0.25], [10, 0.5]]])
        [[5, 0.375], [10, 0.75]]
    """
    columns = zip(*curves, strict=False)
    return [[column[0][0], sum(score for _, score in column) / len(column)] for column in columns]
