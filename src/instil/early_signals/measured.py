"""Outputs of teacher and untrained student for a few samples."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Net, Outputs, Teacher, side_effect_free
from instil.data import labels
from instil.data.samples import Samples
from instil.data.streams import Stream
from instil.early_signals.confidence import class_probabilities
from instil.engine import init_distributed
from instil.experiment.experiment import Experiment
from instil.items import to_device

MAX_SAMPLES = 512
"""Samples on which a signal is measured."""
MAX_SEQUENCES = 32
"""The same for tasks with a label per token, whose logits need much memory."""
SINGLE = ("single", "token")
SEVERAL = ("multi", "binary")


class MeasuredSamples:
    """Batches of a few samples with the outputs of networks for them.

    Args:
        experiment: experiment of a stage.
        samples: samples, such as a split.
        student: the untrained student.
        teacher: the teacher; None without one.

    Attributes:
        batches: the batches, on the device.
        student: outputs of the student, one entry per batch.
        teacher: outputs of the teacher; empty without one.
        num_samples: number of samples.
    """

    def __init__(
        self, experiment: Experiment, samples: Samples, student: Net, teacher: Teacher | None
    ) -> None:
        self.batches = few_batches(experiment, samples)
        self.student = outputs_of(student, self.batches)
        self.teacher = [] if teacher is None else outputs_of(teacher, self.batches)
        self.num_samples = sum(len(batch["index"]) for batch in self.batches)

    def class_labels(self) -> Tensor | None:
        """Return one class index per sample (N,); None for other labels."""
        values = [batch.get("label") for batch in self.batches]
        tensors = [value for value in values if isinstance(value, Tensor) and value.ndim == 1]
        if len(tensors) < len(values):
            return None
        label = torch.cat(tensors)
        return None if label.is_floating_point() or (label == UNLABELLED).any() else label


def few_batches(experiment: Experiment, samples: Samples) -> list[Batch]:
    """Return batches of a few samples, evenly spaced, without augmentation.

    Args:
        experiment: experiment of a stage.
        samples: samples, such as a split.
    """
    if isinstance(samples, Stream):
        batches: Iterable[Batch] = itertools.islice(experiment.loader(samples, shuffle=False), 1)
    else:
        limit = MAX_SEQUENCES if experiment.task.kind in ("token", "sequence") else MAX_SAMPLES
        rows = torch.linspace(0, len(samples) - 1, min(limit, len(samples))).round().long()
        batches = experiment.loader(samples.subset(rows), shuffle=False)
    device = init_distributed()
    return [to_device(experiment.task.as_dict(batch), device) for batch in batches]


def outputs_of(net: nn.Module, batches: Sequence[Batch]) -> list[Outputs]:
    """Return the outputs of a network in eval mode for some batches.

    Args:
        net: a student or a teacher.
        batches: the batches, on the device.
    """
    net = net.to(init_distributed())
    with side_effect_free(net):
        return [net(batch) for batch in batches]


def labelled_training_samples(experiment: Experiment) -> Samples | None:
    """Return the labelled training samples of the student.

    None for a stream, without labels, and if ``data.surrogate`` replaces the training data.
    """
    if experiment.recipe.data.surrogate is not None:
        return None
    samples = experiment.train_data(experiment.recipe.seeds[0])
    if isinstance(samples, Stream) or not labels.num_labelled(samples):
        return None
    return labels.labelled(samples)


def item_probabilities(
    kind: str, batches: Sequence[Batch], outputs: Sequence[Outputs]
) -> tuple[Tensor, Tensor] | None:
    """Return probabilities (M, C) and labels (M,) of all items.

    An item is a sample, a labelled token or pixel, or a class of a sample with several.

    Args:
        kind: kind of the labels.
        batches: the batches.
        outputs: outputs for each of them.

    Returns:
        None if the outputs are not logits of the labels.
    """
    probabilities = []
    targets = []
    for batch, batch_outputs in zip(batches, outputs, strict=True):
        logits = batch_outputs.get("logits")
        label = batch.get("label")
        if not isinstance(logits, Tensor) or not isinstance(label, Tensor):
            return None
        shape = logits.shape[:-1] if kind in SINGLE else logits.shape
        if kind not in SINGLE + SEVERAL or label.shape != shape:
            return None
        target = label.flatten().long()
        items = class_probabilities(logits, kind in SINGLE).flatten(0, -2)
        # Without a label, a token or pixel may be padding.
        is_item = target != UNLABELLED if label.ndim > 1 else torch.ones_like(target).bool()
        probabilities.append(items[is_item])
        targets.append(target[is_item])
    return torch.cat(probabilities), torch.cat(targets)
