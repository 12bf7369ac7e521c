"""Depth of inheritance: at most two classes from a method to Objective or Scheme."""

from __future__ import annotations

import pytest

from instil import catalogue
from instil.core import Balance, Objective, Scheme, Teacher, Weighting

LIMIT = 2
ROOTS: dict[str, type] = {
    "objective": Objective,
    "scheme": Scheme,
    "teacher": Teacher,
    "weighting": Weighting,
    "balance": Balance,
}


def depth(cls: type, root: type) -> int:
    """Number of steps of the longest path from a class up to ``root``."""
    if cls is root:
        return 0
    paths = [depth(base, root) for base in cls.__bases__ if issubclass(base, root)]
    return 1 + max(paths)


@pytest.mark.parametrize("kind", ROOTS)
def test_no_method_is_deep(kind: str) -> None:
    deep = {
        name
        for name in catalogue.names(kind)
        if depth(catalogue.find(kind, name), ROOTS[kind]) > LIMIT
    }
    assert deep == set()


@pytest.mark.parametrize("kind", ["objective", "scheme"])
def test_a_method_has_one_base_class(kind: str) -> None:
    several = [
        name for name in catalogue.names(kind) if len(catalogue.find(kind, name).__bases__) > 1
    ]
    assert several == []


def test_depth_counts_the_longest_path() -> None:
    left = type("Left", (Objective,), {})
    right = type("Right", (type("Base", (Objective,), {}),), {})
    assert depth(Objective, Objective) == 0
    assert depth(type("Both", (left, right), {}), Objective) == 3
