"""Section of a recipe with the candidates of a search."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import AfterValidator

from instil.recipe.base_sections import Name, Section

Changes = Annotated[list[str], Len(min_length=1)]
"""Changes of one teacher, such as ``options.width=8``."""
Sections = Annotated[list[dict[str, Any]], Len(min_length=1)]
"""Sections of an ensemble of teachers."""


def _require_changes(teachers: Any) -> Any:
    """Check that every entry of a list of teachers is a change, or changes joined by plus signs."""
    for entry in teachers if isinstance(teachers, list) else ():
        if not all("=" in change for change in entry.split("+")):
            raise ValueError(
                f"'{entry}' is not a teacher. Expected changes of the recipe's teacher such as "
                "options.width=8, or names with sections, such as small: {options: {width: 8}}"
            )
    if not teachers and teachers is not None:
        raise ValueError(
            "no teachers. Expected names with sections, such as small: {options: {width: 8}}"
        )
    return teachers


class SearchConfig(Section):
    """Candidates of ``instil search``. Options of the command line replace these keys."""

    over: Annotated[
        list[Literal["methods", "options", "students", "teachers"]], Len(min_length=1)
    ] = ["methods"]
    """Subjects of the search: ``methods``, ``options``, ``students``, ``teachers``."""

    candidates: Annotated[list[Name], Len(min_length=1)] | None = None
    """Objectives and schemes of a search over methods. Null: all that fit."""

    teachers: Annotated[
        dict[Name, dict[str, Any] | Changes | Sections] | list[str] | None,
        AfterValidator(_require_changes),
    ] = None
    """Teachers of a search over teachers: sections by name, or a list of changes of the recipe's
    teacher."""

    students: Annotated[list[str], Len(min_length=1)] | None = None
    """Students of a search over students: ``networks``, ``teacher``, ``timm`` or models. Null:
    those of the architectures of student and teacher."""

    limits: dict[Name, str] = {}
    """Limits of a student, such as ``{latency: 5ms, size: 4MB}``."""

    keep: str | None = None
    """Share of the teacher's quality that the student keeps, such as ``98%``. Null: 99 %."""
