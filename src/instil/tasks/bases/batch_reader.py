"""Batches of a task: keys of inputs, batches of a user's loader and of a deployed student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from instil import catalogue
from instil.core import Batch

MAX_TASKS = 3
"""Longest list of tasks that a message proposes."""


class BatchReader:
    """Base class of tasks: how batches are named, adapted and checked.

    Attributes:
        title: name of the task in messages.
        names: names of the values of the tuples that a user's own loader yields.
        inputs: keys of a batch that ``call`` reads.
        axes: axes that ``input.frames``, ``input.points`` and ``input.views`` of a network shorten:
            name -> key of the input and its axis, such as ``{"frames": ("video", 2)}``.
        aliases: other names of batch keys, such as those of Hugging Face.
    """

    title: ClassVar[str]
    names: ClassVar[tuple[str, ...]]
    inputs: ClassVar[tuple[str, ...]]
    axes: ClassVar[Mapping[str, tuple[str, int]]] = {}
    aliases: ClassVar[Mapping[str, str]] = {}

    def as_dict(self, batch: Any) -> Batch:
        """Return a copy of a mapping, or a dict of the values of a tuple by ``names``.

        Raises:
            ValueError: if the batch is of another type, or the tuple of another length.
        """
        if isinstance(batch, Mapping):
            return dict(batch)
        is_tuple = isinstance(batch, (tuple, list))
        if not is_tuple or len(batch) != len(self.names):
            received = f"{len(batch)} values" if is_tuple else f"a {type(batch).__name__}"
            raise ValueError(
                f"a batch must be a dict, or a tuple of {' and '.join(self.names)}, not {received}"
            )
        return dict(zip(self.names, batch, strict=True))

    def adapt_batch(self, batch: Batch) -> Batch:
        """Return a batch of a user's loader in the form that this task reads.

        Keys in ``aliases`` (those of Hugging Face) get the task's name, uint8 images become float
        in [0, 1], whole labels int64.
        """
        adapted: Batch = {}
        for key, value in batch.items():
            name = self.aliases.get(key, key)
            adapted[key if name in batch else name] = value
        image = adapted.get("image")
        label = adapted.get("label")
        if isinstance(image, (tuple, list)):
            raise ValueError(
                f"image: a {type(image).__name__} of {len(image)} images. Expected a tensor (N, C, "
                "H, W). Stack the images, and write boxes as label (N, K) and box (N, K, 4), "
                "padded with -100, as instil.data.label_kinds.BoxData does"
            )
        if isinstance(image, Tensor) and image.dtype == torch.uint8:
            adapted["image"] = image.float() / 255
        if isinstance(label, Tensor) and not label.is_floating_point():
            adapted["label"] = label.long()
        return adapted

    def check_inputs(self, batch: Batch) -> None:
        """Raise ValueError for a batch without all inputs of this task."""
        missing = [key for key in self.inputs if key not in batch]
        if missing:
            tasks = _tasks_for(batch)
            hint = f". Set the task {' or '.join(tasks)}" if 0 < len(tasks) <= MAX_TASKS else ""
            raise ValueError(
                f"{self.title} needs '{missing[0]}' in a batch. Expected {', '.join(self.inputs)}, "
                f"got {', '.join(batch)}{hint}"
            )

    def to_batch(self, inputs: Tensor | Mapping[str, Tensor], shape: Sequence[int]) -> Batch:
        """Return a batch for an exported student.

        Args:
            inputs: a batch; for tasks with one input also the tensor itself.
            shape: shape of one input in training.

        Raises:
            ValueError: if an input is missing or has another form than in training.
        """
        if isinstance(inputs, Mapping):
            batch = dict(inputs)
        elif len(self.inputs) > 1:
            raise ValueError(
                f"a student of {self.title} has several inputs. Expected a dict of "
                f"{', '.join(self.inputs)}, got a {type(inputs).__name__}"
            )
        else:
            batch = {self.inputs[0]: inputs}
        self.check_inputs(batch)
        return batch


def _tasks_for(batch: Batch) -> list[str]:
    """Return the tasks whose inputs are in a batch."""
    tasks = {name: catalogue.find("task", name) for name in catalogue.names("task")}
    return [name for name, task in tasks.items() if task.inputs and set(task.inputs) <= set(batch)]
