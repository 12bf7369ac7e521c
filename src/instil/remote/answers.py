"""Schemas of what servers answer: what is usable of an answer, whatever else is odd about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter, ValidationError

_Any = TypeVar("_Any", bound=BaseModel)
Tokens = Annotated[int, Field(ge=0, le=2**53)]
Text = tuple[str, str]
"""A text, and why it ended."""
Positions = list[
    tuple[list[Annotated[int, Field(ge=0, lt=2**31)]], list[Annotated[FiniteFloat, Field(le=0.01)]]]
]
"""Of each position the token numbers and their log-probabilities."""
TEXT: TypeAdapter[Text] = TypeAdapter(Text)
POSITIONS: TypeAdapter[Any] = TypeAdapter(Positions)


class _Usage(BaseModel):
    total_tokens: Tokens


class _MetaInfo(BaseModel):
    prompt_tokens: Tokens
    completion_tokens: Tokens = 0


class _Timings(BaseModel):
    cache_n: Tokens = 0


class _LlamaCpp(BaseModel):
    tokens_evaluated: Tokens
    tokens_predicted: Tokens = 0


class _Message(BaseModel):
    content: str | list[Any] | None = None


class _Choice(BaseModel):
    message: _Message | None = None
    text: str | None = None
    finish_reason: Any = None


class _Completion(BaseModel):
    choices: Annotated[list[_Choice], Field(min_length=1)]


class _Named(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Named]


def model_names(answer: Any) -> list[str]:
    """Names of the models that a server lists.

    Args:
        answer: its answer to ``/models``.

    Returns:
        The names.

    Raises:
        ValueError: if it lists none.
    """
    try:
        return [one.id for one in _Models.model_validate(answer).data]
    except ValidationError as error:
        raise ValueError("the answer lists no models") from error


def used_tokens(answer: Mapping[str, Any]) -> int | None:
    """Tokens that an answer took, as any of the servers reports it.

    Args:
        answer: the answer.

    Returns:
        The number; None if the answer has none, or a negative or odd one.
    """
    if (usage := _parsed(_Usage, answer.get("usage"))) is not None:
        return usage.total_tokens
    if (meta := _parsed(_MetaInfo, answer.get("meta_info"))) is not None:
        return meta.prompt_tokens + meta.completion_tokens
    if (counts := _parsed(_LlamaCpp, answer)) is not None:
        # llama.cpp need not read again what it kept.
        timings = _parsed(_Timings, answer.get("timings"))
        cached = 0 if timings is None else timings.cache_n
        return max(0, counts.tokens_evaluated - cached) + counts.tokens_predicted
    return None


def completion_text(answer: Any) -> Text:
    """Text of a completion, and why it ended.

    Args:
        answer: an answer of ``/completions`` or ``/chat/completions``. The content may be a text,
            a list of parts, of which those with a text count, or null.

    Returns:
        The text, in which lone surrogates are replaced, and the reason, by default ``stop``.

    Raises:
        ValueError: if the answer holds no text.
    """
    parsed = _parsed(_Completion, answer)
    if parsed is None:
        raise ValueError(f"the server's answer holds no text: {str(answer)[:200]}")
    choice = parsed.choices[0]
    if choice.message is None and choice.text is None:
        raise ValueError(f"the server's answer holds no text: {str(answer)[:200]}")
    content = choice.text if choice.message is None else choice.message.content
    reason = choice.finish_reason
    text = _joined(content, answer) if isinstance(content, list) else content or ""
    return replace_surrogates(text), reason if isinstance(reason, str) and reason else "stop"


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates, which are no characters and cannot be written to a file.

    Args:
        text: any text.

    Returns:
        The text, in which two surrogates that belong together are one character.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _joined(parts: list[Any], answer: Any) -> str:
    """The texts in the parts of a message."""
    texts = [part if isinstance(part, str) else _part_text(part) for part in parts]
    if parts and all(text is None for text in texts):
        raise ValueError(f"the server's answer holds no text: {str(answer)[:200]}")
    return "".join(text for text in texts if text is not None)


def _part_text(part: Any) -> str | None:
    text = part.get("text") if isinstance(part, Mapping) else None
    return text if isinstance(text, str) else None


def _parsed(schema: type[_Any], value: Any) -> _Any | None:
    try:
        return schema.model_validate(value)
    except (ValidationError, RecursionError):
        return None
