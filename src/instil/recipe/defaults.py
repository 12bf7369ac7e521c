"""Defaults of a recipe that depend on its other sections or on the methods it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instil import catalogue
from instil.catalogue.signatures import with_defaults
from instil.recipe.checking import DEFAULT_NAMES, named_methods
from instil.recipe.learning_rate import default_learning_rate
from instil.recipe.overrides import merge

DEFAULT_BASELINES = ("alone",)
LANGUAGE_CLIP = 1.0
"""Largest norm of the gradient of language models, as in the trainers of transformers and TRL.
Measured: without clipping, 15 layers of SmolLM2 had 1.3 times the perplexity after 40 steps.
"""
STREAMED_SOURCES = ("webdataset",)
"""Sources without a length, for which baselines cannot read teacher outputs of all samples."""
SOURCE_KEYS = (
    "num_labeled",
    "batch_size",
    "sampler",
    "workers",
    "augment",
    "test_classes",
    "test_stages",
    "exemplars",
)
"""Keys of ``data`` that a stage with another source inherits from the recipe."""
TRAINING_KEYS = ("surrogate", *SOURCE_KEYS)
"""Keys of ``data`` that change the training or the evaluation, but not the samples."""
GENERAL: dict[str, Any] = {
    "task": {"name": DEFAULT_NAMES["task"]},
    "scheme": {"type": DEFAULT_NAMES["scheme"]},
    "train": {},
    "stages": [],
}


def resolve_defaults(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain data of a recipe with all defaults, as far as its sections can be read."""
    whole = GENERAL | dict(data)
    for key in ("objectives", "metrics"):
        if isinstance(whole.get(key), Mapping):
            whole[key] = {
                name: {"type": name} | entry if isinstance(entry, dict) else entry
                for name, entry in whole[key].items()
            }
    _inherit_inputs(whole)
    _set_trainings(whole)
    task = _task_class(whole["task"])
    if whole.get("baselines") is None:
        whole["baselines"] = _baselines(whole, task)
    if whole.get("export") is None:
        whole["export"] = getattr(task, "exports", True)
    # A list, because the loop replaces the sections that the generator reads.
    for kind, name, options, path in list(named_methods(whole)):
        if kind != "optimizer" and name in catalogue.names(kind):
            all_options = with_defaults(catalogue.find(kind, name), options)
            whole = _with_options(whole, path.split("."), all_options)
    return whole


def _inherit_inputs(whole: dict[str, Any]) -> None:
    """Let a student that is a copy of its teacher read the teacher's inputs."""
    student, teacher = whole.get("student"), whole.get("teacher")
    if isinstance(teacher, list) and teacher:
        teacher = teacher[0]
    if not isinstance(student, Mapping) or not isinstance(teacher, Mapping):
        return
    if student.get("model") != "teacher":
        return
    inherited = {"reads": teacher["reads"]} if "reads" in teacher else {}
    whole["student"] = inherited | dict(student)
    sections = [side.get("input", {}) for side in (teacher, student)]
    if any(sections) and all(isinstance(section, Mapping) for section in sections):
        # Key by key: another size leaves the normalisation.
        whole["student"]["input"] = {**sections[0], **sections[1]}


def _set_trainings(whole: dict[str, Any]) -> None:
    """Set the teacher's training, which inherits the student's, clipping and learning rate."""
    train = whole["train"]
    task = whole["task"]
    is_language = isinstance(task, Mapping) and task.get("name") == "language"
    if is_language and isinstance(train, Mapping) and "clip" not in train:
        train = whole["train"] = {**train, "clip": LANGUAGE_CLIP}
    changes = whole.get("teacher_train") or {}
    both_mappings = isinstance(train, Mapping) and isinstance(changes, Mapping)
    if whole.get("teacher") is not None and both_mappings:
        whole["teacher_train"] = merge(train, changes)
    rate = default_learning_rate(whole)
    if rate is not None:
        # After the teacher's training was derived: this rate is for a student that starts trained.
        whole["train"] = merge(train, {"optimizer": {"lr": rate.value}})


def _baselines(whole: Mapping[str, Any], task: Any) -> list[str]:
    data = whole.get("data") if isinstance(whole.get("data"), Mapping) else {}
    assert isinstance(data, Mapping)
    surrogate = data.get("surrogate")
    if isinstance(surrogate, Mapping):
        kinds = {name: catalogue.find("baseline", name) for name in catalogue.files("baseline")}
        data_free = [name for name, kind in kinds.items() if kind.is_data_free]
        return [name for name in data_free if name != surrogate.get("name")]
    names = list(getattr(task, "baselines", {}).get(_label_kind(whole, task), DEFAULT_BASELINES))
    if data.get("num_labeled") == 0:
        return [name for name in names if not catalogue.find("baseline", name).trains]
    if stages_change_data(whole.get("stages")):
        return [name for name in names if name in DEFAULT_BASELINES] or names[:1]
    source = str(data.get("name")).partition(":")[0]
    if data.get("streaming") is True or source in STREAMED_SOURCES:
        return [name for name in names if not catalogue.find("baseline", name).needs_teacher]
    return names


def _label_kind(whole: Mapping[str, Any], task: Any) -> str:
    """Return the kind of the labels: that of the section, or the first kind of the task."""
    section = whole["task"]
    default = getattr(task, "kinds", ("single",))[0]
    return str(section.get("kind", default)) if isinstance(section, Mapping) else default


def stages_change_data(entries: Any) -> bool:
    """Whether a stage names a source, a class subset or options of a source.

    Args:
        entries: plain data of ``stages``.
    """
    for entry in entries if isinstance(entries, list) else ():
        data = entry.get("data") if isinstance(entry, Mapping) else None
        if isinstance(data, Mapping) and set(data) - set(TRAINING_KEYS):
            return True
    return False


def _with_options(section: Any, path: list[str], options: Mapping[str, Any]) -> Any:
    """Return a section with options added at a path; unchanged if there is no such path."""
    if isinstance(section, list):
        return [
            _with_options(entry, path[1:], options) if str(index) == path[0] else entry
            for index, entry in enumerate(section)
        ]
    if not path:
        return {**section, **options}
    return {
        key: _with_options(entry, path[1:], options) if key == path[0] else entry
        for key, entry in section.items()
    }


def _task_class(section: Any) -> Any:
    """Return the class of the task that a section names; None if there is no such task."""
    name = section
    if isinstance(section, Mapping):
        name = section.get("name", DEFAULT_NAMES["task"])
    if isinstance(name, str) and name in catalogue.names("task"):
        return catalogue.find("task", name)
    return None
