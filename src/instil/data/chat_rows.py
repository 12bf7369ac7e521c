"""Checked form of a row of conversational data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from instil.cards import suggestion
from instil.data.chat_content import (
    content_of,
    image_column,
    row_columns,
    shown,
    string,
    text_of,
    without_sources,
)
from instil.data.instruction_rows import instruction_turns

ROLES = ("system", "developer", "user", "assistant", "tool")
SHAREGPT_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "observation": "tool",
    "function_call": "assistant",
}
"""Roles of ShareGPT (``from``) with another name here."""
LOSS_KEYS = ("loss", "weight", "train")
"""Keys of a message that exclude an answer (``false`` or 0) in ms-swift, OpenAI's files and
axolotl."""
COLUMNS = ("messages", "conversations", "prompt", "completion", "chosen", "text")
FORMS = "'messages', 'prompt' and 'completion', 'instruction' and 'output', or 'text'"
Message = dict[str, Any]


@dataclass(frozen=True)
class ChatRow:
    """One text to learn.

    Attributes:
        where: file and line, for messages.
        messages: turns of a conversation; empty for plain texts.
        num_prompt: number of messages at the beginning that are never learned.
        prompt: plain text in front of the answer; None for none.
        text: plain text, or the answer to ``prompt``; None for a conversation.
        tools: tools for the chat template.
        domain: subject of the text; empty for none.
        teacher_id: teacher of the row, an index or a name; None for none.
        is_cut: whether the answer was cut, so that its end is not learned.
        excluded: indices of messages whose answer the row excludes.
        images: files or data URLs of the images, in the order of the text.
    """

    where: str
    messages: list[Message] = field(default_factory=list)
    num_prompt: int = 0
    prompt: str | None = None
    text: str | None = None
    tools: list[Any] | None = None
    domain: str = ""
    teacher_id: int | str | None = None
    is_cut: bool = False
    excluded: tuple[int, ...] = ()
    images: tuple[str, ...] = ()

    def answers(self) -> list[int]:
        """Return the indices of the answers that may be learned."""
        return [
            index
            for index, turn in enumerate(self.messages)
            if turn["role"] == "assistant" and index >= self.num_prompt
        ]

    def has_empty_answer(self) -> bool:
        """Whether an answer is empty, or there is none."""
        if self.text is not None:
            return not self.text.strip()
        learned = [self.messages[index] for index in self.answers() if index not in self.excluded]
        return not learned or any(_is_empty(turn) for turn in learned)


def chat_row(row: Any, where: str) -> ChatRow:
    """Return the checked form of a row.

    Args:
        row: a JSON line, or the columns of a row by name.
        where: file and line, for messages.

    Raises:
        ValueError: for a row of another form, an unknown role, and values of another type.
    """
    row = row_columns(row, where, f"an object with {FORMS}")
    teacher_id = row.get("teacher_id")
    if teacher_id is not None and (isinstance(teacher_id, bool) or not _is_name(teacher_id)):
        raise ValueError(f"{where}: teacher_id is {teacher_id!r:.40}. Expected an index or a name")
    domain = row.get("domain")
    common: dict[str, Any] = {
        "where": where,
        "domain": "" if domain is None else str(domain),
        "teacher_id": teacher_id,
        "tools": _tools(row.get("tools"), where),
        "is_cut": row.get("finish_reason") == "length",
        "images": image_column(row, where),
    }
    # A file of several forms has the columns of all forms; those of the others are null.
    turns = row.get("messages")
    turns = row.get("conversations") if turns is None else turns
    turns = instruction_turns(row, where) if turns is None else turns
    if turns is not None:
        return _conversation([], _messages(turns, "messages", where), common)
    # Of a preference pair the chosen answer is learned.
    for column in ("completion", "chosen"):
        if row.get(column) is not None:
            return _prompt_row(row.get("prompt"), row[column], column, where, common)
    if row.get("text") is not None:
        return ChatRow(text=string(row["text"], "text", where), **common)
    raise ValueError(_missing_columns(row, where))


def _missing_columns(row: Mapping[str, Any], where: str) -> str:
    for column in COLUMNS:
        if column in row:
            lacks = " and no 'completion'" if column == "prompt" else ""
            return f"{where}: '{column}' is {shown(row[column])}{lacks}. Expected {FORMS}"
    names = ", ".join(row) or "none"
    hint = next((near for name in row if "mean" in (near := suggestion(name, COLUMNS))), "")
    return f"{where}: no column to learn, only {names}. Expected {FORMS}.{hint}"


def _is_name(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and value >= 0)


def _prompt_row(
    prompt: Any, completion: Any, column: str, where: str, common: dict[str, Any]
) -> ChatRow:
    """Row of a prompt and a completion, both texts or both lists of messages."""
    if isinstance(completion, str):
        text = "" if prompt is None else string(prompt, "prompt", where)
        return ChatRow(prompt=text, text=completion, **common)
    if isinstance(prompt, str):
        raise ValueError(
            f"{where}: 'prompt' is a text and '{column}' a list. Expected two texts, or two lists "
            "of messages"
        )
    before = _messages([] if prompt is None else prompt, "prompt", where, may_be_empty=True)
    after = _messages(completion, column, where)
    return _conversation(before, after, common)


def _conversation(before: list[Message], after: list[Message], common: dict[str, Any]) -> ChatRow:
    """Row of messages, without the keys that exclude answers."""
    excluded = []
    messages, images = without_sources(before + after, common["images"], common["where"])
    common = common | {"images": images}
    learned = []
    for index, message in enumerate(messages):
        if not _counts(message, f"{common['where']}: message {index}"):
            excluded.append(index)
        learned.append({key: message[key] for key in message if key not in LOSS_KEYS})
    return ChatRow(messages=learned, num_prompt=len(before), excluded=tuple(excluded), **common)


def _counts(message: Message, where: str) -> bool:
    """Whether no key of a message excludes its answer.

    Raises:
        ValueError: for another value than true, false, 0 or 1, such as the text "false".
    """
    for key in LOSS_KEYS:
        if message.get(key, True) not in (0, 1):
            raise ValueError(
                f"{where}: {key} is {shown(message[key])}. Expected true or false, or 1 or 0"
            )
    return all(message.get(key, True) for key in LOSS_KEYS)


def _messages(turns: Any, column: str, where: str, may_be_empty: bool = False) -> list[Message]:
    if isinstance(turns, str):
        try:
            turns = json.loads(turns)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{where}: '{column}' is a text. Expected a list of messages, or its JSON"
            ) from error
    if not isinstance(turns, Sequence) or not (turns or may_be_empty):
        raise ValueError(f"{where}: '{column}' is {shown(turns)}. Expected a list of messages")
    return [_message(turn, f"{where}: message {index}") for index, turn in enumerate(turns)]


def _message(turn: Any, where: str) -> Message:
    """Return a message of the template, from the form of OpenAI or of ShareGPT."""
    if not isinstance(turn, Mapping):
        raise ValueError(f"{where} is {shown(turn)}. Expected an object with role and content")
    # Parquet files have every key of any message; the missing ones are null.
    message: Message = without_nulls(turn)
    if "role" not in message and "from" in message:
        role = message.pop("from")
        message["role"] = SHAREGPT_ROLES.get(role, role)
        message["content"] = message.pop("value", "")
    role = message.get("role")
    if role not in ROLES:
        hint = suggestion(str(role), ROLES) if "role" in message else ""
        problem = f"has the unknown role {role!r}" if "role" in message else "has no role"
        raise ValueError(f"{where} {problem}. Expected one of {', '.join(ROLES)}.{hint}")
    message["content"] = content_of(message.get("content", ""), role, where)
    return message


def _tools(tools: Any, where: str) -> list[Any] | None:
    """Tools of a row, which some files hold as JSON."""
    if isinstance(tools, str):
        try:
            tools = json.loads(tools) if tools.strip() else None
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: 'tools' is not JSON: {error}") from error
    if tools is None or tools == []:
        return None
    if not isinstance(tools, list):
        raise ValueError(f"{where}: 'tools' is {shown(tools)}. Expected a list of tools")
    parsed = [json.loads(tool) if isinstance(tool, str) else tool for tool in tools]
    return [without_nulls(tool) for tool in parsed]


def without_nulls(value: Any) -> Any:
    """Return a nested value without the keys whose value is null."""
    if isinstance(value, Mapping):
        return {key: without_nulls(part) for key, part in value.items() if part is not None}
    if isinstance(value, list):
        return [without_nulls(part) for part in value]
    return value


def _is_empty(turn: Message) -> bool:
    return not text_of(turn["content"]).strip() and not turn.get("tool_calls")
