"""Settings of a search from the command line and the section ``search`` of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from instil.recipe.search_sections import SearchConfig
from instil.search.limits import parse_limits, parse_share
from instil.search.state import Settings
from instil.search.subjects import KEEP
from instil.search.teacher_arms import parse_teachers, teachers_of_changes


def settings_from(
    section: SearchConfig | None,
    over: str | None = None,
    candidates: str | None = None,
    students: str | None = None,
    limits: Sequence[str] = (),
    keep: str | None = None,
    teachers: str | None = None,
    refinements: int | None = None,
    **settings: Any,
) -> Settings:
    """Build the settings of a search. Commas separate names in a text.

    Args:
        section: section ``search`` of the recipe, whose keys the other arguments replace. Its
            keys of other subjects than those of ``over`` are not used.
        over: subjects. None: those of the section, or ``methods``.
        candidates: names of objectives and schemes.
        students: families of students, or models.
        limits: limits such as ``latency=5ms``.
        keep: share of the teacher's quality.
        teachers: YAML file, or changes of the recipe's teacher.
        refinements: largest number of students between the sizes of the candidates. None: the
            default.
        settings: other fields of ``Settings``.

    Raises:
        ValueError: for options that are unknown or contradict each other.
    """
    own = section or SearchConfig()
    subjects = _names("--over", over) or tuple(own.over)
    chosen: dict[str, Any] = {
        "candidates": _names("--candidates", candidates),
        "students": _names("--students", students),
        "teachers": parse_teachers(teachers),
        "limits": parse_limits(limits),
        "keep": None if keep is None else parse_share(keep),
    }
    for name, value in _of_section(own, subjects).items():
        chosen[name] = chosen[name] or value
    chosen["keep"] = chosen["keep"] or KEEP
    if refinements is not None:
        settings["num_refinements"] = refinements
    built = Settings(subjects, **chosen, **settings)
    _check_refinements(built, refinements)
    return built


def _check_refinements(settings: Settings, refinements: int | None) -> None:
    """Check that a search has the students between the sizes of the candidates that are set."""
    if refinements is None:
        return
    if not settings.has_students:
        raise ValueError(
            "--refinements: for students only. Expected --over students, got --over "
            f"{','.join(settings.over)}"
        )
    if refinements and not settings.has_refinements:
        raise ValueError(
            "--refinements: this search trains no further sizes. Expected --over students without "
            "methods, networks or teacher in --students, and no random search. Remove --refinements"
        )


def _of_section(section: SearchConfig, subjects: Sequence[str]) -> dict[str, Any]:
    """Return the settings of a section that belong to the subjects of a search."""
    values: dict[str, Any] = {}
    if "methods" in subjects and section.candidates:
        values["candidates"] = tuple(section.candidates)
    if "teachers" in subjects and section.teachers:
        is_list = isinstance(section.teachers, list)
        values["teachers"] = teachers_of_changes(section.teachers) if is_list else section.teachers
    if "students" not in subjects:
        return values
    if section.students:
        values["students"] = tuple(section.students)
    limits = [f"{name}={value}" for name, value in section.limits.items()]
    values["limits"] = parse_limits(limits, "search.limits")
    if section.keep is not None:
        values["keep"] = parse_share(section.keep, "search.keep")
    return values


def _names(option: str, text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise ValueError(f"{option}: no name. Expected one or more. Leave it out for the default")
    return names
