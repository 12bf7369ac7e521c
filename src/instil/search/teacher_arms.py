"""Candidates of a search over teachers: checkpoints, sizes, numbers of teachers, assistants."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instil.recipe import RecipeError
from instil.recipe.overrides import merge, override
from instil.recipe.sections import ModelConfig, Recipe, TeacherConfig
from instil.recipe.yaml_text import read_yaml

ASSISTANT = "assistant"
FILE_ENDINGS = (".yaml", ".yml")
OWN = ("options", "weights", "is_trained", "pretrained", "taps", "classes", "freeze", "changes")
"""Keys of a teacher that another model does not share."""


@dataclass(frozen=True)
class TeacherCandidate:
    """A teacher of a search.

    Attributes:
        name: unique name.
        teacher: section ``teacher`` of the recipe, or a list of sections.
        assistant: network that learns from the teacher and then teaches the student; None: the
            student learns from the teacher.
    """

    name: str
    teacher: dict[str, Any] | list[dict[str, Any]]
    assistant: dict[str, Any] | None = None


def parse_teachers(text: str | None) -> dict[str, Any] | None:
    """Parse the option ``--teachers``.

    Args:
        text: YAML file of names and sections, or changes of the recipe's teacher such as
            ``options.width=8,num_replicas=3``. A plus sign joins the changes of one teacher.

    Returns:
        Name -> section, or -> list of changes.

    Raises:
        ValueError: for a file that is not a mapping, or a text without ``=``.
    """
    if text is None:
        return None
    if text.endswith(FILE_ENDINGS):
        return _read(Path(text))
    return teachers_of_changes(text.split(","))


def teachers_of_changes(entries: Iterable[str]) -> dict[str, Any]:
    """Return names and changes of teachers.

    Args:
        entries: changes of the recipe's teacher; a plus sign joins those of one teacher.

    Raises:
        ValueError: for an entry without ``=``, and for two teachers of one name.
    """
    teachers: dict[str, Any] = {}
    for entry in (part.strip() for part in entries):
        changes = [change.strip() for change in entry.split("+")]
        if not all("=" in change for change in changes):
            raise ValueError(
                f"--teachers: '{entry}' is not a teacher. Expected a YAML file, or changes of the "
                "recipe's teacher such as options.width=8,num_replicas=3"
            )
        name = "_".join(_name_of(change) for change in changes)
        if name in teachers:
            raise ValueError(
                f"--teachers: two teachers have the name {name}. Expected different ones. Name "
                "them in a YAML file"
            )
        teachers[name] = changes
    return teachers


def _name_of(change: str) -> str:
    """Return the name of a change: its last key and its value, or the file of a checkpoint."""
    path, _, value = change.partition("=")
    if path == "weights":
        return Path(value).stem
    return re.sub("[/@]", "_", f"{path.rpartition('.')[2]}_{value}")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"--teachers: no file {path}. Expected a YAML file of teachers")
    content = read_yaml(path)
    if not isinstance(content, dict) or not content:
        raise ValueError(
            f"--teachers: {path} has no teachers. Expected names with sections, such as small: "
            "{options: {width: 8}}"
        )
    return {str(name): section for name, section in content.items()}


def teacher_candidates(recipe: Recipe, teachers: Mapping[str, Any]) -> Iterator[TeacherCandidate]:
    """Yield the teachers of a search, without the recipe's own one.

    A section has the keys that differ from the recipe's first teacher. The options of another
    model are complete. A list of sections is an ensemble. ``assistant`` is a network.

    Args:
        recipe: the recipe.
        teachers: result of ``parse_teachers``.

    Raises:
        RecipeError: for a section that is not one.
    """
    base = recipe.teachers[0].model_dump(mode="json")
    for name, spec in teachers.items():
        if spec == []:
            raise RecipeError(f"--teachers: {name} is empty. Expected changes or sections")
        is_changes = isinstance(spec, list) and all(isinstance(one, str) for one in spec)
        if is_changes:
            yield TeacherCandidate(name, override({"teacher": base}, _paths(spec))["teacher"])
        elif isinstance(spec, list):
            yield TeacherCandidate(name, [_section(name, base, one) for one in spec])
        else:
            section = _checked(name, spec)
            assistant = section.pop(ASSISTANT, None)
            if assistant is not None:
                assistant = _assistant(name, base, _checked(name, assistant))
            yield TeacherCandidate(name, _section(name, base, section), assistant)


def _paths(changes: list[str]) -> list[str]:
    return [f"teacher.{change}" for change in changes]


def _section(name: str, base: Mapping[str, Any], changes: Any) -> dict[str, Any]:
    changes = _checked(name, changes)
    model = changes.get("model", base["model"])
    if base["model"].removeprefix("networks:") != model.removeprefix("networks:"):
        base = {key: value for key, value in base.items() if key not in OWN}
    return merge(base, changes)


def _assistant(name: str, base: Mapping[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return the section of a student, which reads what the teacher reads.

    It does not start from the weights of the teacher, which it learns from.
    """
    shared = {key: base[key] for key in ModelConfig.model_fields if key in base}
    shared.pop("weights", None)
    return _section(name, shared, changes)


def teacher_of_assistant(assistant: Mapping[str, Any], weights: Path) -> dict[str, Any]:
    """Return the section of a trained assistant as a teacher.

    Args:
        assistant: section of the network.
        weights: file of its weights.
    """
    section = TeacherConfig(**assistant).model_dump(mode="json")
    return section | {"weights": str(weights.resolve()), "freeze": []}


def _checked(name: str, section: Any) -> dict[str, Any]:
    if not isinstance(section, Mapping):
        raise RecipeError(
            f"--teachers: {name} is not a section. Expected a mapping such as "
            f"{{options: {{width: 8}}}}, got {section!r}"
        )
    return dict(section)
