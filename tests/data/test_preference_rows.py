"""Forms of preference pairs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from instil.data.preference_rows import rejected_row
from tests.data.chat_files import turns


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {"prompt": "1?", "chosen": "2", "rejected": "3"},
            {"prompt": "1?", "chosen": "3"},
        ),
        (
            {"prompt": "1?", "completion": "2", "rejected": "3", "chosen": None},
            {"prompt": "1?", "completion": "3", "chosen": None},
        ),
        (
            {"chosen": turns("1?", "2"), "rejected": turns("1?", "3")},
            {"chosen": turns("1?", "3")},
        ),
        (
            {"messages": turns("1?", "2"), "rejected_messages": turns("1?", "3")},
            {"messages": turns("1?", "3")},
        ),
        (
            {"messages": turns("0", "0", "1?", "2"), "rejected_response": "3"},
            {"messages": turns("0", "0", "1?", "3")},
        ),
    ],
)
def test_forms_of_a_pair(row: dict[str, Any], expected: dict[str, Any]) -> None:
    assert rejected_row(row, "a:1") == expected
    assert rejected_row(json.dumps(row), "a:1") == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": []}, r"^a:1: no rejected answer, only the columns messages\. Expected"),
        ({"rejected": "3"}, r"^a:1: 'rejected' without 'chosen'\. Expected"),
        ("{", r"^a:1: the line is not JSON"),
        ("[1]", r"^a:1: a list\. Expected"),
        (
            {"messages": turns("1?"), "rejected_response": "3"},
            r"^a:1: 'messages' is .* ends with the preferred answer",
        ),
    ],
)
def test_rows_without_a_pair_are_refused(row: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rejected_row(row, "a:1")
