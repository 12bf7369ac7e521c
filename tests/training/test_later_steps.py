"""Steps that are announced to a scheme before they run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from instil.core import Batch
from instil.training.later_steps import LaterSteps, windows
from tests.training.test_fit import offline


def steps(count: int, seen: list[int]) -> Iterator[list[Batch]]:
    for index in range(count):
        seen.append(index)
        yield [{"step": index}]


@pytest.mark.parametrize("num_later", [0, 1, 3, 9])
def test_windows_hold_the_steps_that_follow(num_later: int) -> None:
    step_indices = [
        [one[0]["step"] for one in window] for window in windows(steps(5, []), num_later)
    ]
    assert step_indices == [list(range(first, min(5, first + num_later + 1))) for first in range(5)]


def test_no_step_is_read_early_for_a_scheme_that_prepares_none() -> None:
    seen: list[int] = []
    announced: Any = LaterSteps(offline()).announced(steps(3, seen), 0, contextlib.nullcontext)
    assert next(announced)[0]["step"] == 0
    assert seen == [0]
