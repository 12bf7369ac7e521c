"""Verifiers of answers."""

from __future__ import annotations

import pytest

from instil.data.verifiers import Verifier, exact_match, last_number


@pytest.mark.parametrize(
    ("answer", "reference", "is_correct"),
    [
        ("3+4=07=07", "7", True),
        ("the result is 1,234.50", "1234.5", True),
        ("12 apples and -3", "-3", True),
        ("12, or 13", "12", False),
        ("it is 10-7", "7", True),
        ("x=-5", "-5", True),
        ("the half is .5", "0.5", True),
        ("the half is .5", "5", False),
        ("wait...5", "5", True),
        ("1,2345", "5", False),
        ("none", "12", False),
        ("12", "none", False),
        ("9" * 5000, "9" * 5000, True),
        ("9" * 5000, "9", False),
    ],
)
def test_last_number(answer: str, reference: str, is_correct: bool) -> None:
    assert last_number(answer, reference) is is_correct
    assert Verifier("last_number").accepts(answer, reference) is is_correct


def test_exact_match_ignores_white_space_around_texts_only() -> None:
    assert exact_match("a b\n", " a b")
    assert not exact_match("a  b", "a b")
