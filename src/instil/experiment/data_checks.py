"""Checks of a recipe's data and loss weights before training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch, Scheme
from instil.data.labels import num_labelled
from instil.data.samples import Samples
from instil.data.stream_splits import label_count, sample_count
from instil.data.streams import Stream
from instil.experiment.experiment import Experiment
from instil.experiment.fitted_student import is_fitted_student

MAX_NAMED = 5
"""Number of classes that a message names."""

FEW_VALIDATION = 50
"""Smallest number of validation samples without a note."""


def data_summary(experiment: Experiment) -> dict[str, Any]:
    """Return the numbers of samples, labels and classes of the data.

    Returns:
        ``noun`` (such as image), ``kind`` of the labels and ``classes`` (number of named outputs).
        ``train``, ``validation`` and ``test`` have ``samples`` and ``labelled`` each (None where
        ``data.surrogate`` replaces the training data). ``student_labels`` is the number of labels
        for the student. All numbers of a stream are None.
    """
    splits = experiment.splits
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    seen = experiment.stages[-1].train_data(experiment.recipe.seeds[0])
    # A student without training data must not open their labels, not even to count them.
    is_closed = experiment.recipe.data.surrogate is not None
    return {
        "noun": splits.train.noun,
        "kind": splits.kind,
        "classes": len(splits.classes),
        "student_labels": label_count(seen),
        **{
            name: {
                "samples": sample_count(part),
                "labelled": None if is_closed else label_count(part),
            }
            for name, part in parts.items()
        },
    }


def data_problems(
    experiment: Experiment, samples: Samples, batch: Batch, scheme: Scheme
) -> Iterator[str]:
    """Yield the problems of the data of one stage, each with its recipe path.

    Args:
        experiment: the experiment of the stage.
        samples: training samples of the distilled student.
        batch: a batch of them.
        scheme: the prepared scheme of the stage.
    """
    image = batch.get("image")
    if isinstance(image, Tensor) and experiment.recipe.data.surrogate is None:
        yield from _image_problems(experiment, image)
    yield from class_problems(experiment, samples)
    is_read = experiment.recipe.data.surrogate is None and not isinstance(samples, Stream)
    # A fit has no batches.
    if is_read and not is_fitted_student(scheme):
        yield from _labelled_share_problems(experiment, samples, scheme)


def _image_problems(experiment: Experiment, image: Tensor) -> Iterator[str]:
    if len(image) > 1 and bool((image == image[:1]).all()):
        yield (
            f"data: all {len(image)} images of the first batch are equal. Expected different "
            "images. Check how they are read"
        )
    crop = experiment.recipe.data.augment.crop
    height, width = image.shape[-2:]
    if crop >= min(height, width):
        yield (
            f"data.augment.crop: shifts of up to {crop} pixels move images of {height} x {width} "
            f"out of the picture. Expected less than {min(height, width)}"
        )


def class_problems(experiment: Experiment, samples: Samples) -> Iterator[str]:
    """Yield the classes without a sample in a split, or without a label for the student.

    Args:
        experiment: the experiment of a stage.
        samples: training samples of the distilled student.
    """
    splits = experiment.splits
    if experiment.recipe.data.surrogate is not None or isinstance(samples, Stream):
        return
    if splits.kind != "single" or splits.train.label.ndim != 1 or len(splits.classes) < 2:
        return
    if experiment.task.has_open_classes:
        return
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    data = experiment.stage_data
    learned = splits.classes if data is None else data.learned
    for name, part in parts.items():
        # Classes of earlier stages need no samples in this one.
        if missing := [one for one in _missing_classes(part, splits.classes) if one in learned]:
            yield f"data: {_listed(missing, splits.classes)} no {part.noun} in {name}"
    lacking = [one for one in _missing_classes(samples, splits.classes) if one in learned]
    count = experiment.recipe.data.num_labeled
    is_complete = not set(_missing_classes(splits.train, splits.classes)) & set(learned)
    if count and lacking and is_complete:
        yield (
            f"data.num_labeled: with {count} labels {_listed(lacking, splits.classes)} no label "
            f"for the student. Expected at least {len(learned)}, one a class"
        )


def validation_notes(experiment: Experiment) -> list[str]:
    """Return a sentence if the validation split has too few samples for choices by its score.

    Args:
        experiment: the experiment of a recipe.
    """
    samples = experiment.splits.validation
    is_counted = experiment.splits.kind == "single" and samples.label.ndim == 1
    if not is_counted or len(samples) >= FEW_VALIDATION:
        return []
    return [
        f"data: the validation split has {len(samples)} {samples.noun}s, so that its accuracy "
        f"changes in steps of {100 / len(samples):.1f} points. Choices by it (train.keep: best, "
        f"searches) need {FEW_VALIDATION} or more"
    ]


def _missing_classes(part: Samples, classes: tuple[str, ...]) -> list[str]:
    labels = part.label[part.label != UNLABELLED].to(torch.int64)
    counts = torch.bincount(labels, minlength=len(classes))
    return [classes[index] for index in (counts == 0).nonzero().flatten().tolist()]


def _listed(missing: list[str], classes: tuple[str, ...]) -> str:
    names = ", ".join(missing[:MAX_NAMED]) + (", ..." if len(missing) > MAX_NAMED else "")
    verb = "has" if len(missing) == 1 else "have"
    return f"{len(missing)} of {len(classes)} classes ({names}) {verb}"


def _labelled_share_problems(
    experiment: Experiment, samples: Samples, scheme: Scheme
) -> Iterator[str]:
    """Batches without a label, if an objective needs labels and the batches have all samples."""
    needing = [name for name, one in scheme.objectives.named() if one.items.labelled]
    labelled = num_labelled(samples)
    if not needing or not labelled:
        return
    mean = experiment.recipe.data.batch_size * labelled / len(samples)
    if mean < 1:
        yield (
            f"data.num_labeled: {labelled} of {len(samples)} {samples.noun}s have a label, "
            f"{mean:.2g} a batch, so that about {100 * math.exp(-mean):.0f} % of the batches have "
            f"nothing for objectives.{needing[0]}. Use a larger data.batch_size, or more labels"
        )
