"""Models of transformers by their folder or name, such as ``transformers:my_folder``.

They are a short form for the Auto class of the task with the option ``path``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instil import catalogue
from instil.recipe.errors import RecipeError

PREFIX = "transformers:"
AUTO = "AutoModel"
"""Beginning of the names of the Auto classes."""
AUTO_CLASSES = {
    "language": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "text_classification": "AutoModelForSequenceClassification",
    "classification": "AutoModelForImageClassification",
}
"""Task -> Auto class of its models."""
WHOLE = ("language", "seq2seq")
"""Tasks whose models have no head that is new and has to be trained."""


def expand_library_model(entry: Any, task: str, path: str) -> Any:
    """Expand a model of transformers that is named by its folder or its name on the hub.

    Args:
        entry: section of a network.
        task: name of the task.
        path: recipe path of the section, for messages.

    Returns:
        The section with the Auto class of the task, the option ``path`` and ``pretrained``, unless
        the section sets it; for whole language models also with ``is_trained``.

    Raises:
        RecipeError: for a task without an Auto class.
    """
    if not isinstance(entry, Mapping) or not _is_folder(entry.get("model")):
        return entry
    name = str(entry["model"]).removeprefix(PREFIX)
    if task not in AUTO_CLASSES:
        if task not in catalogue.names("task"):
            raise RecipeError(f"task: {catalogue.unknown('task', task)}")
        raise RecipeError(
            f"{path}.model: {PREFIX}{name} names weights, and the task {task} has no Auto class of "
            f"its own. Expected one of the tasks {', '.join(AUTO_CLASSES)}. Set model: "
            f"{PREFIX}AutoModel... and options.path: {name}"
        )
    options = entry.get("options") or {}
    has_weights = entry.get("pretrained", True)
    expanded = {
        **entry,
        "model": f"{PREFIX}{AUTO_CLASSES[task]}",
        "options": {**options, "path": name},
        "pretrained": has_weights,
    }
    if has_weights and task in WHOLE:
        expanded.setdefault("is_trained", True)
    return expanded


def _is_folder(model: Any) -> bool:
    is_transformers = isinstance(model, str) and model.startswith(PREFIX)
    return is_transformers and not model.removeprefix(PREFIX).startswith(AUTO)
