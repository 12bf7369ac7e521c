"""Model, labelled data and local training of a client."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import UNLABELLED, Net
from instil.offline_scheme import ObjectiveSpecs, offline_scheme
from instil.tasks.bases.loader import task_loader
from instil.tasks.classification import Classification
from instil.training.fit import Training, fit


@dataclass(frozen=True)
class LocalClient:
    """Client of federated learning, a classifier of images.

    Attributes:
        model: network, which is trained in place.
        loader: labelled batches ``(image, label)`` or dicts, which stay on the client.
        training: training of one round; its schedule starts again in each round.
        objectives: objectives that read labels only, as in ``instil.distil``.
    """

    model: nn.Module
    loader: Iterable[Any]
    training: Training = field(default_factory=lambda: Training(epochs=1))
    objectives: ObjectiveSpecs = "cross_entropy"

    def train(self) -> None:
        """Train the model for one round; it is left in eval mode.

        Raises:
            ValueError: for wrong labels, and for an objective that reads a teacher.
        """
        task = Classification()
        scheme = offline_scheme(None, self.model, self.loader, self.objectives, task)
        batches = task_loader(self.loader, task, scheme.student)
        fit(scheme, batches, self.training, names=batches.names)

    def label_counts(self, num_classes: int) -> Tensor:
        """Return the number of labelled samples of each class (C,)."""
        return label_counts(self.loader, num_classes)


def label_counts(loader: Iterable[Any], num_classes: int) -> Tensor:
    """Count the labelled samples of each class.

    Args:
        loader: batches ``(image, label)`` or dicts.
        num_classes: number of classes C.

    Returns:
        (C,), int64.

    Raises:
        ValueError: if a label is not a class.

    Example:
        >>> import torch
        >>> label_counts([(torch.zeros(3, 1, 2, 2), torch.tensor([0, 2, 2]))], 3)
        tensor([1, 0, 2])
    """
    task = Classification()
    batches = task_loader(loader, task, Net(nn.Identity(), task.call))
    counts = torch.zeros(num_classes, dtype=torch.int64)
    for item in loader:
        label = batches.named(item)["label"].cpu()
        label = label[label != UNLABELLED]
        if len(label) and not 0 <= int(label.min()) <= int(label.max()) < num_classes:
            raise ValueError(
                f"num_classes: the labels are not classes. Expected 0 to {num_classes - 1}, got "
                f"{int(label.min())} to {int(label.max())}"
            )
        counts += label.bincount(minlength=num_classes)
    return counts
