"""Subjects of a search, and the settings that only one of them has."""

from __future__ import annotations

from typing import Any

from instil.cards.closest import did_you_mean

SUBJECTS = ("methods", "options", "students", "teachers")
"""Values of the option ``over``."""
KEEP = 0.99
"""Share of the teacher's quality that the chosen student keeps, by default."""
STUDENT_OPTIONS = {"students": "students", "limits": "limit", "keep": "keep"}
"""Settings that only a search over students has, and their options on the command line."""


def check_subjects(settings: Any) -> None:
    """Check that the subjects of a search and their settings fit each other.

    Args:
        settings: ``Settings`` of the search.

    Raises:
        ValueError: for an unknown subject, subjects that exclude each other, and settings of
            another subject.
    """
    over = settings.over
    for subject in over or ("",):
        if subject not in SUBJECTS:
            raise ValueError(
                f"--over: unknown subject '{subject}'. Expected {' or '.join(SUBJECTS)}, or "
                f"two of them, separated by a comma.{did_you_mean(subject, SUBJECTS)}"
            )
    if "teachers" in over and set(over) - {"teachers", "options"}:
        raise ValueError(
            f"--over: {' and '.join(sorted(over))} at once. Expected teachers or "
            "teachers,options. Search for one of them first, and for the other with its best.yaml"
        )
    if settings.num_folds > 1 and ("teachers" in over or settings.strategy == "exhaustive"):
        raise ValueError(
            "--folds: for rounds of trials, which an exhaustive search and a search over teachers "
            "need not have. Expected 1. Remove --folds"
        )
    if {"students", "methods"} <= set(over) and settings.strategy not in ("auto", "halving"):
        raise ValueError(
            f"--strategy: {settings.strategy} for students and methods at once. Expected halving. "
            "Search for one of them first, and for the other with its best.yaml"
        )
    if "students" not in over:
        _check_student_options(settings)
    if settings.teachers is not None and "teachers" not in over:
        raise ValueError(
            f"--teachers: for teachers only. Expected --over teachers, got --over {','.join(over)}"
        )


def _check_student_options(settings: Any) -> None:
    defaults: dict[str, Any] = {"students": None, "limits": {}, "keep": KEEP}
    for name, option in STUDENT_OPTIONS.items():
        if getattr(settings, name) != defaults[name]:
            raise ValueError(
                f"--{option}: for students only. Expected --over students, got --over "
                f"{','.join(settings.over)}"
            )
