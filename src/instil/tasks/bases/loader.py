"""Adapter of a user's loader to the batches of a task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Net, side_effect_free
from instil.engine.cpu_offload import device_of
from instil.items import to_device
from instil.items.loader_items import as_loader, named_batch
from instil.tasks.bases.task import Task


class TaskLoader:
    """Iterable over the batches of ``loader`` as dicts of a task.

    The first batch is checked against the student. Attributes of the loader, such as ``generator``
    and ``set_epoch``, are available on this object.

    Args:
        loader: iterable of dicts, or of tuples named by ``names``.
        task: task, which defines keys, dtypes and labels.
        student: network, whose logits define the number of classes.
        names: names of the values of a tuple; None for those of the task.
    """

    def __init__(
        self, loader: Iterable[Any], task: Task, student: Net, names: Sequence[str] | None = None
    ) -> None:
        self.loader = as_loader(loader)
        self.task = task
        self.student = student
        self.names = tuple(names or task.names)
        self.num_classes: int | None = None

    def __getattr__(self, name: str) -> Any:
        # A copy or an unpickled object has no attributes yet.
        if name == "loader":
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[Batch]:
        for item in self.loader:
            batch = self.task.adapt_batch(self.named(item))
            if self.num_classes is None:
                self.task.check_inputs(batch)
                if "label" in batch:
                    self.task.check_data(batch)
                self.num_classes = self.count_classes(batch)
                self._check_labels(batch)
            elif "label" in batch and batch["label"].device.type == "cpu":
                # On an accelerator the check would wait for the device in every step.
                self._check_labels(batch)
            yield batch

    def sample(self, model: nn.Module) -> Batch:
        """Return the first batch on the device of ``model``; the random state is restored.

        Raises:
            ValueError: if the loader is empty.
        """
        generator = getattr(self.loader, "generator", None)
        state = generator.get_state() if isinstance(generator, torch.Generator) else None
        with side_effect_free(nn.Module()):
            item = next(iter(self.loader), None)
        if isinstance(generator, torch.Generator) and state is not None:
            generator.set_state(state)
        if item is None:
            raise ValueError("loader: it has no batch. Expected at least one")
        return to_device(self.task.adapt_batch(self.named(item)), device_of(model))

    def count_classes(self, batch: Batch) -> int:
        """Return the number of logits of the student; 0 if it has none."""
        with side_effect_free(self.student):
            outputs = self.student(to_device(batch, device_of(self.student)))
        logits = outputs.get("logits")
        return logits.shape[-1] if isinstance(logits, Tensor) else 0

    def named(self, item: Any) -> Batch:
        """Return a batch of the loader as a dict.

        Raises:
            ValueError: if the item cannot be read as a batch.
        """
        return named_batch(item, self.names)

    def _check_labels(self, batch: Batch) -> None:
        label = batch.get("label")
        classes = self.num_classes or 0
        if not isinstance(label, Tensor) or label.is_floating_point() or classes < 2:
            return
        is_labelled = label != UNLABELLED
        if "valid" in batch and batch["valid"].shape == label.shape:
            is_labelled = is_labelled & batch["valid"]
        wrong = label[is_labelled & ((label < 0) | (label >= classes))]
        if len(wrong):
            raise ValueError(
                f"loader: label {int(wrong[0])} is not a class of the student, which has {classes} "
                f"logits. Expected 0 to {classes - 1}, or {UNLABELLED} for no label, got "
                f"{int(wrong.min())} to {int(wrong.max())}. {self.task.label_hint}".rstrip()
            )


class SizedTaskLoader(TaskLoader):
    """``TaskLoader`` of a loader with a length."""

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]


def task_loader(
    loader: Iterable[Any], task: Task, student: Net, names: Sequence[str] | None = None
) -> TaskLoader:
    """Return a user's loader as one of a task; it has a length if ``loader`` has one.

    Args:
        loader: iterable of dicts, or of tuples named by ``names``.
        task: task, which defines keys, dtypes and labels.
        student: network, whose logits define the number of classes.
        names: names of the values of a tuple; None for those of the task.
    """
    kind = SizedTaskLoader if isinstance(loader, Sized) else TaskLoader
    return kind(loader, task, student, names)
