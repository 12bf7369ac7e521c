"""Objectives of a training whose user names none."""

from __future__ import annotations

from typing import Any

from instil.tasks.bases.classes import ClassTask
from instil.tasks.bases.task import Task

MIN_CLASSES = 3
"""Smallest number of classes for ``dist``: correlations leave the threshold of two classes open.
Measured in docs/defaults.md.
"""


def has_class_counts(task: Task) -> bool:
    """Whether the default objectives of a task depend on the number of classes."""
    return isinstance(task, ClassTask) and task.kind == "single"


def default_objectives(task: Task, num_classes: int) -> dict[str, dict[str, Any]]:
    """Return the objectives on the labels of a task, and one on logits that fits the labels.

    Args:
        task: the task.
        num_classes: number of classes; not used unless ``has_class_counts`` is true.

    Returns:
        Name -> options. The objective on logits is ``dist`` for three or more classes,
        ``logit_mse`` for numbers, and ``kd`` for other labels.
    """
    on_logits = "logit_mse" if task.kind == "real" else "kd"
    if has_class_counts(task) and num_classes >= MIN_CLASSES:
        on_logits = "dist"
    options = {"multi_label": True} if on_logits == "kd" and task.kind == "multi" else {}
    return {name: {} for name in task.label_objectives} | {on_logits: options}
