"""Content of the messages of a conversation: text, or parts of text and images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Part = dict[str, Any]
"""``{"type": "text", "text": ...}`` or ``{"type": "image", "source": ...}``."""
SOURCES = ("image", "path", "url", "image_url")
"""Keys of a part that may hold the file or URL of its image."""
IMAGE_TYPES = ("image", "image_url")


def content_of(content: Any, role: str, where: str) -> str | list[Part]:
    """Return the text of a content, or its parts if there is an image.

    Args:
        content: a text, or a list of parts.
        role: role of the message.
        where: file, line and message, for messages.

    Raises:
        ValueError: for another form, a part of another type, and an image in an answer.
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ValueError(f"{where}: content is {shown(content)}. Expected a text")
    parts: list[Part] = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        if kind in IMAGE_TYPES:
            parts.append({"type": "image", "source": _source(part, where)})
        elif kind == "text":
            text = part.get("text") if isinstance(part, Mapping) else part
            parts.append({"type": "text", "text": string(text, "text", where)})
        else:
            raise ValueError(
                f"{where}: content has a part of type {kind!r}. Expected text or image"
            )
    if all(part["type"] == "text" for part in parts):
        return text_of(parts)
    if role == "assistant":
        raise ValueError(f"{where}: an answer has an image. Expected text only")
    return parts


def text_of(content: str | Sequence[Part]) -> str:
    """Return the text of a content without its images."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def without_sources(
    messages: Sequence[dict[str, Any]], column: tuple[str, ...], where: str
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Return messages whose images have no source, and the sources of all images.

    Args:
        messages: messages with the contents of ``content_of``.
        column: sources in a column of the row; empty for none.
        where: file and line, for messages.

    Raises:
        ValueError: if an image has no source, or two.
    """
    plain = []
    sources: list[str] = []
    for message in messages:
        content = message["content"]
        if isinstance(content, str):
            plain.append(message)
            continue
        images = [part["source"] for part in content if part["type"] == "image"]
        sources += [source for source in images if source is not None]
        if (None in images) != bool(column):
            problem = "two sources" if column else "no source"
            raise ValueError(
                f"{where}: an image has {problem}. Expected its file in the part (image, path or "
                "image_url), or in the column images"
            )
        parts = [{key: part[key] for key in part if key != "source"} for part in content]
        plain.append(message | {"content": parts})
    return plain, column or tuple(sources)


def image_column(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Return the sources in the column ``images`` or ``image`` of a row."""
    value = row.get("images")
    value = row.get("image") if value is None else value
    if value is None:
        return ()
    values = value if isinstance(value, list) else [value]
    return tuple(_file(one, where) for one in values)


def _source(part: Mapping[str, Any], where: str) -> str | None:
    """File or URL of a part; None if a column of the row has it."""
    for key in SOURCES:
        value = part.get(key)
        if isinstance(value, Mapping) and key == "image_url":
            value = value.get("url")
        if value is not None:
            return _file(value, where)
    return None


def _file(value: Any, where: str) -> str:
    """Checked file or data URL of an image."""
    path = value.get("path") if isinstance(value, Mapping) else value
    if not isinstance(path, str) or not path:
        raise ValueError(f"{where}: an image is {shown(value)}. Expected the path of its file")
    path = path.removeprefix("file://")
    if path.startswith(("http://", "https://")):
        raise ValueError(
            f"{where}: the image {path:.80} is not on this computer. Expected a file. Download it"
        )
    return path


def shown(value: Any) -> str:
    """Return the beginning of a value, for messages."""
    return "null" if value is None else f"{value!r:.40}"


def string(value: Any, column: str, where: str) -> str:
    """Return a value that must be a text.

    Args:
        value: value of a column.
        column: name of the column.
        where: file and line, for messages.

    Raises:
        ValueError: for another type.
    """
    if not isinstance(value, str):
        raise ValueError(f"{where}: '{column}' is {shown(value)}. Expected a text")
    return value


def row_columns(row: Any, where: str, expected: str) -> Mapping[str, Any]:
    """Return the columns of a row by name.

    Args:
        row: a JSON line, or the columns by name.
        where: file and line, for messages.
        expected: expected forms, for messages.

    Raises:
        ValueError: for a line that is not JSON, or not an object.
    """
    if isinstance(row, str):
        try:
            row = json.loads(row)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: the line is not JSON: {error}") from error
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}: a {type(row).__name__}. Expected {expected}")
    return row
