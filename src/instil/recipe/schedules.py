"""Validation of schedules, which may stand for a number in a recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from pydantic.functional_validators import WrapValidator

from instil.core import Schedule
from instil.recipe.errors import RecipeError

REQUIRED_KEYS = {"start", "end"}
SHARE_KEYS = ("until", "after")


def _number_or_schedule(value: Any, parse: Callable[[Any], Any]) -> Any:
    if isinstance(value, Schedule):
        value = dataclasses.asdict(value)
    if not isinstance(value, Mapping):
        return parse(value)
    if not REQUIRED_KEYS <= set(value) <= {*REQUIRED_KEYS, *SHARE_KEYS}:
        keys = ", ".join(map(str, value)) or "nothing"
        raise ValueError(f"a schedule has start, end and, if you like, after and until, not {keys}")
    shares = {key: value[key] for key in SHARE_KEYS if key in value}
    for key, share in shares.items():
        # In Python, True is an int.
        if isinstance(share, bool) or not isinstance(share, (int, float)):
            raise ValueError(
                f"{key} of a schedule is a share of the training between 0 and 1, not {share!r}"
            )
    return Schedule(parse(value["start"]), parse(value["end"]), **shares)


def refuse_schedules(error: TypeError, options: Mapping[str, Any], path: str) -> None:
    """Raise RecipeError for the error of a constructor that computes with a schedule.

    Args:
        error: error of the constructor.
        options: its arguments.
        path: path of the section.

    Raises:
        RecipeError: if an option is a schedule.
    """
    scheduled = [name for name, value in options.items() if isinstance(value, Schedule)]
    if scheduled:
        raise RecipeError(
            f"{path}: {error} (one of {', '.join(scheduled)} cannot be a schedule)"
        ) from error


SCHEDULED = WrapValidator(_number_or_schedule)
"""Validator of a number type that also accepts a schedule between two numbers of that type."""
