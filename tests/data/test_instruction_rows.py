"""Rows of Alpaca and ms-swift in conversational data."""

from __future__ import annotations

from typing import Any

import pytest

from instil.data.chat_rows import chat_row

OLD = [["hi", "hello"], ["1 + 1", "2"]]


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"query": "a", "response": "b"}, "user a, assistant b"),
        ({"instruction": "a", "input": "", "output": "b"}, "user a, assistant b"),
        ({"instruction": "a", "input": "x", "output": "b", "text": "y"}, "user a\nx, assistant b"),
        (
            {"system": "s", "query": "a", "response": "b", "history": OLD},
            "system s, user hi, assistant hello, user 1 + 1, assistant 2, user a, assistant b",
        ),
        (
            {"query": "a", "response": "b", "history": '[["hi", "hello"]]'},
            "user hi, assistant hello, user a, assistant b",
        ),
    ],
)
def test_questions_and_answers_are_messages(row: dict[str, Any], messages: str) -> None:
    read = chat_row(row, "a.jsonl:1")
    assert ", ".join(f"{turn['role']} {turn['content']}" for turn in read.messages) == messages
    assert read.num_prompt == 0


def test_a_question_without_a_column_of_its_answer_leaves_the_text() -> None:
    read = chat_row({"query": "a", "text": "b"}, "a.jsonl:1")
    assert (read.messages, read.text) == ([], "b")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "a", "response": None}, "a.jsonl:1: 'response' is null. Expected a text"),
        ({"instruction": 3, "output": "b"}, "a.jsonl:1: 'instruction' is 3. Expected a text"),
        ({"query": "a", "response": "b", "history": "hi"}, "'history' is .* list of pairs"),
        ({"query": "a", "response": "b", "history": [["hi"]]}, "'history' is .* list of pairs"),
        ({"instruction": "a"}, "no column to learn, only instruction. Expected .* 'output'"),
    ],
)
def test_wrong_values_name_row_and_column(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chat_row(row, "a.jsonl:1")
