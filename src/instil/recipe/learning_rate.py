"""The default learning rate of students that start from trained weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WHOLE_NET, ADAPTERS = 2e-5, 2e-4
"""Learning rates of AdamW for a whole pretrained language model, and for its LoRA adapters."""
ADAMS = ("adam", "adamw")
CUTTING_NOTHING = {"lora", "quantized"}
"""Changes after which the student still computes what its weights were trained for."""


def default_learning_rate(recipe: Mapping[str, Any]) -> float | None:
    """Return the learning rate of a recipe that names none, None for the general default.

    It differs for a language model that starts from trained weights and loses no layer or
    channel: the general rate destroys what these weights know. A student cut to a few layers
    has to learn anew and keeps the general rate.

    Args:
        recipe: the whole recipe as plain data, before its defaults are filled in.
    """
    train = recipe.get("train")
    student = recipe.get("student")
    task = recipe.get("task")
    if not all(isinstance(section, Mapping) for section in (train, student, task)):
        return None
    assert isinstance(train, Mapping)
    assert isinstance(student, Mapping)
    assert isinstance(task, Mapping)
    optimizer = train.get("optimizer") or {}
    if not isinstance(optimizer, Mapping) or "lr" in optimizer or recipe.get("stages"):
        return None
    changes = student.get("changes") or {}
    cuts = not isinstance(changes, Mapping) or not set(changes) <= CUTTING_NOTHING
    is_adam = str(optimizer.get("type", "adamw")).lower() in ADAMS
    if task.get("name") != "language" or cuts or not is_adam:
        return None
    if not _is_trained(_origin(student, recipe.get("teacher"))):
        return None
    return ADAPTERS if "lora" in changes else WHOLE_NET


def _origin(student: Mapping[str, Any], teacher: Any) -> Any:
    """The entry whose weights the student starts from: its own, or that of the first teacher."""
    if student.get("model") != "teacher":
        return student
    return teacher[0] if isinstance(teacher, list) and teacher else teacher


def _is_trained(model: Any) -> bool:
    if not isinstance(model, Mapping):
        return False
    has_weights = model.get("weights") is not None or model.get("trained")
    is_file = model.get("model") in ("gguf", "networks:gguf")
    return bool(has_weights or model.get("pretrained") or is_file)
