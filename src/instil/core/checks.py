"""Checks of the arguments of objectives and schemes."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from numbers import Real
from typing import Any

from torch import nn

from instil.cards import Schedule, form_of
from instil.core.objective import Objective
from instil.core.teacher import Teacher


def check_types(objectives: Any, weights: Mapping[str, Any]) -> None:
    """Check the types of objectives and weights.

    Args:
        objectives: name -> objective.
        weights: name -> number or schedule.

    Raises:
        ValueError: for a value of another type, and a weight that is negative or not finite.
    """
    # A ModuleDict maps names to modules too, but is not a Mapping.
    if not isinstance(objectives, (Mapping, nn.ModuleDict)):
        raise ValueError(
            f"objectives: Expected a dict of name -> objective, got {type(objectives).__name__}"
        )
    for name, objective in objectives.items():
        if not isinstance(objective, Objective):
            raise ValueError(
                f"objectives.{name}: Expected an Objective, such as KD(), got {form_of(objective)}"
            )
        if not hasattr(objective, "sample_weight"):
            raise ValueError(
                f"objectives.{name}: the constructor of {type(objective).__name__} did not call "
                "super().__init__(). Call it first"
            )
    for name, weight in weights.items():
        ends = (weight.start, weight.end) if isinstance(weight, Schedule) else (weight,)
        if not all(isinstance(end, Real) and isfinite(end) for end in ends):
            raise ValueError(
                f"objectives.{name}.weight: Expected a finite number or a Schedule, got {weight!r}"
            )
        if min(ends) < 0:
            raise ValueError(
                f"objectives.{name}.weight: {min(ends):g} is negative, so that training increases "
                "the loss. Expected a weight of at least 0"
            )


def check_teacher(teacher: Any) -> None:
    """Check the type of the teacher of a scheme.

    Args:
        teacher: a ``Teacher`` or None.

    Raises:
        ValueError: for another type.
    """
    if teacher is not None and not isinstance(teacher, Teacher):
        raise ValueError(
            f"teacher: Expected a Teacher or None, got {form_of(teacher)}. Use Frozen(module)"
        )
