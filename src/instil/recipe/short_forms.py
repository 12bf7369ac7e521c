"""Short forms of a recipe: one value that stands for a section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instil.recipe.base_sections import TaskConfig
from instil.recipe.library_models import expand_library_model

SHORT_FORMS = (
    ("task", "name"),
    ("data", "name"),
    ("scheme", "type"),
    ("balance", "type"),
    ("ensemble", "type"),
    ("student", "model"),
    ("teacher", "model"),
)
"""Sections, and the key whose value may stand for the section."""

DEFAULT_TASK = TaskConfig().name
"""Task of a recipe without the section ``task``."""

TEACHER_SHORT_FORMS = (("scheme", "type"), ("data", "name"))


def expand_short_forms(data: Mapping[str, Any], task: str = DEFAULT_TASK) -> dict[str, Any]:
    """Expand the short forms of a recipe and of its stages.

    ``model: transformers:FOLDER`` is the Auto class of the task with these weights.
    ``task: name``, ``scheme: name`` and ``student: model`` become sections; ``kd: 0.5`` is an
    objective with this weight, and ``kd:`` one with defaults. ``metrics: [macro_f1]`` is a list of
    names, or of mappings from a name to its options; ``metrics: macro_f1`` is one name.

    Args:
        data: the recipe, or one of its stages.
        task: task of a stage, or of a recipe that does not set it.

    Raises:
        RecipeError: for weights of transformers with a task that has no Auto class.
    """
    expanded = dict(data)
    for section, key in SHORT_FORMS:
        if isinstance(expanded.get(section), str):
            expanded[section] = {key: expanded[section]}
    if isinstance(expanded.get("task"), Mapping):
        task = str(expanded["task"].get("name", task))
    if "teacher" in expanded:
        expanded["teacher"] = _expand_teachers(expanded["teacher"], task)
    if "student" in expanded:
        expanded["student"] = expand_library_model(expanded["student"], task, "student")
    data_section = expanded.get("data")
    if isinstance(data_section, Mapping) and isinstance(data_section.get("surrogate"), str):
        expanded["data"] = {**data_section, "surrogate": {"name": data_section["surrogate"]}}
    objectives = expanded.get("objectives")
    if isinstance(objectives, Mapping):
        expanded["objectives"] = {name: _objective(entry) for name, entry in objectives.items()}
    if "metrics" in expanded:
        expanded["metrics"] = _metrics(expanded["metrics"])
    stages = expanded.get("stages")
    if isinstance(stages, list):
        expanded["stages"] = [_stage(stage, task) for stage in stages]
    return expanded


def _stage(stage: Any, task: str) -> Any:
    return expand_short_forms(stage, task) if isinstance(stage, Mapping) else stage


def _expand_teachers(teacher: Any, task: str) -> Any:
    if not isinstance(teacher, list):
        return _teacher(teacher, task)
    entries = [{"model": entry} if isinstance(entry, str) else entry for entry in teacher]
    return [_teacher(entry, task) for entry in entries]


def _teacher(entry: Any, task: str) -> Any:
    if not isinstance(entry, Mapping):
        return entry
    expanded = dict(entry)
    for section, key in TEACHER_SHORT_FORMS:
        if isinstance(expanded.get(section), str):
            expanded[section] = {key: expanded[section]}
    return expand_library_model(expanded, task, "teacher")


def _metrics(entries: Any) -> Any:
    """Return metrics as a mapping from names to options."""
    entries = [entries] if isinstance(entries, str) else entries
    if isinstance(entries, list):
        sections: dict[str, Any] = {}
        for entry in entries:
            sections |= entry if isinstance(entry, Mapping) else {str(entry): None}
        entries = sections
    if not isinstance(entries, Mapping):
        return entries
    return {name: {} if options is None else options for name, options in entries.items()}


def _objective(entry: Any) -> Any:
    if entry is None:
        return {}
    if isinstance(entry, Mapping) and isinstance(entry.get("sample_weight"), str):
        return {**entry, "sample_weight": {"type": entry["sample_weight"]}}
    if isinstance(entry, (int, float)) and not isinstance(entry, bool):
        return {"weight": entry}
    return entry
