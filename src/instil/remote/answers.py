"""Schemas of server responses, which accept unknown entries and odd values elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from annotated_types import Len
from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter, ValidationError

_Schema = TypeVar("_Schema", bound=BaseModel)
TokenCount = Annotated[int, Field(ge=0, le=2**53)]
Text = tuple[str, str]
"""Text of a completion and its finish reason."""
Positions = list[
    tuple[list[Annotated[int, Field(ge=0, lt=2**31)]], list[Annotated[FiniteFloat, Field(le=0.01)]]]
]
"""Token ids and their log-probabilities at each position."""
TEXT: TypeAdapter[Text] = TypeAdapter(Text)
POSITIONS: TypeAdapter[Any] = TypeAdapter(Positions)
PROBE: TypeAdapter[Any] = TypeAdapter(
    tuple[Annotated[list[int], Len(1, 1)], Annotated[list[FiniteFloat], Len(1, 1)]]
)
"""Response to the probe: the most likely token and its log-probability. Models differ in it."""


class _Usage(BaseModel):
    total_tokens: TokenCount


class _MetaInfo(BaseModel):
    prompt_tokens: TokenCount
    completion_tokens: TokenCount = 0


class _Timings(BaseModel):
    cache_n: TokenCount = 0


class _LlamaCpp(BaseModel):
    tokens_evaluated: TokenCount
    tokens_predicted: TokenCount = 0


class _Message(BaseModel):
    content: str | list[Any] | None = None


class _Choice(BaseModel):
    message: _Message | None = None
    text: str | None = None
    finish_reason: Any = None


class _Completion(BaseModel):
    choices: Annotated[list[_Choice], Field(min_length=1)]


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]


def model_names(response: Any) -> list[str]:
    """Return the names of the models that a server lists.

    Args:
        response: response of ``/models``.

    Raises:
        ValueError: if it lists no models.
    """
    try:
        return [model.id for model in _Models.model_validate(response).data]
    except ValidationError as error:
        raise ValueError("the response lists no models") from error


def used_tokens(response: Mapping[str, Any]) -> int | None:
    """Return the number of tokens that a response used, in the format of any supported server.

    Args:
        response: response of a completion endpoint.

    Returns:
        The number of tokens; None if the response has no valid number.
    """
    usage = _parse_or_none(_Usage, response.get("usage"))
    if usage is not None:
        return usage.total_tokens
    meta = _parse_or_none(_MetaInfo, response.get("meta_info"))
    if meta is not None:
        return meta.prompt_tokens + meta.completion_tokens
    counts = _parse_or_none(_LlamaCpp, response)
    if counts is None:
        return None
    # llama.cpp counts the whole prompt as evaluated, although it reuses the cached part.
    timings = _parse_or_none(_Timings, response.get("timings"))
    cached = 0 if timings is None else timings.cache_n
    return max(0, counts.tokens_evaluated - cached) + counts.tokens_predicted


def completion_text(response: Any) -> Text:
    """Return the text of a completion and its finish reason.

    Args:
        response: response of ``/completions`` or ``/chat/completions``. The content is a text, a
            list of parts, or null. Parts without text are ignored.

    Returns:
        The text without lone surrogates, and the finish reason, ``stop`` by default.

    Raises:
        ValueError: if the response has no text.
    """
    parsed = _parse_or_none(_Completion, response)
    if parsed is None:
        raise _no_text(response)
    choice = parsed.choices[0]
    if choice.message is None and choice.text is None:
        raise _no_text(response)
    content = choice.text if choice.message is None else choice.message.content
    text = _join_parts(content, response) if isinstance(content, list) else content or ""
    reason = choice.finish_reason
    return replace_surrogates(text), reason if isinstance(reason, str) and reason else "stop"


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates, which are not characters and cannot be written to a file.

    Args:
        text: any text.

    Returns:
        The text, in which a pair of surrogates becomes one character.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _no_text(response: Any) -> ValueError:
    return ValueError(f"the server's response has no text: {str(response)[:200]}")


def _join_parts(parts: list[Any], response: Any) -> str:
    texts = [part if isinstance(part, str) else _part_text(part) for part in parts]
    if parts and all(text is None for text in texts):
        raise _no_text(response)
    return "".join(text for text in texts if text is not None)


def _part_text(part: Any) -> str | None:
    text = part.get("text") if isinstance(part, Mapping) else None
    return text if isinstance(text, str) else None


def _parse_or_none(schema: type[_Schema], value: Any) -> _Schema | None:
    try:
        return schema.model_validate(value)
    except (ValidationError, RecursionError):
        return None
