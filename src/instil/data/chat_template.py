"""Chat templates: the text of a conversation and the characters of its answers."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from instil.data.chat_rows import Message
from instil.data.paths import located

Span = tuple[int, int]
"""First character, and the one behind the last."""
GENERATION = re.compile(r"(\{%-?\s*)generation(\s*-?%\})")
"""Mark of a template around the tokens that a model generates."""
END_GENERATION = re.compile(r"(\{%-?\s*)endgeneration(\s*-?%\})")
SPECIAL_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
PROBE = "instil"
"""Text whose place in the result shows the form of contents that a template reads."""
ANSWER = "distil"
"""Text of an answer in the check of a template."""
CHATML = Path(__file__).with_name("chatml.jinja")


class ChatTemplate:
    """Chat template of a tokenizer.

    Args:
        source: text of the template (Jinja).
        tokens: special tokens that the template may use, such as ``eos_token``.
        name: option and origin of the template, for messages.

    Attributes:
        has_marks: whether the template marks the answers by ``{% generation %}``.
    """

    def __init__(self, source: str, tokens: dict[str, str], name: str = "chat_template"):
        self.source = source
        self.tokens = tokens
        self.name = name
        self.has_marks = GENERATION.search(source) is not None

    @cached_property
    def reads_parts(self) -> bool:
        """Whether the template reads contents as lists of parts, as for images."""
        parts = [{"type": "text", "text": PROBE}]
        as_text, as_parts = (self._probe([_message(content)]) for content in (PROBE, parts))
        return PROBE not in (as_text or "") and PROBE in (as_parts or "")

    def _probe(self, messages: Sequence[Message]) -> str | None:
        """Text of a conversation; None if the template refuses it."""
        try:
            texts, _ = _renderer()(
                conversations=[messages], chat_template=self.source, **self.tokens
            )
        # A template may raise any error of Jinja or of Python.
        except Exception:
            return None
        return str(texts[0])

    @cached_property
    def _render(self) -> Any:
        """Function that renders the template, which is checked once.

        Raises:
            ValueError: for a text that is not a template of Jinja, and for a template that leaves
                out the contents of messages.
        """
        render = _renderer()
        try:
            render(conversations=[], chat_template=self.source)
        except Exception as error:  # the error of Jinja is no ValueError
            line = getattr(error, "lineno", None)
            where = "" if line is None else f", line {line}"
            raise ValueError(
                f"{self.name}{where}: cannot be read as a template of Jinja: {error}"
            ) from error
        messages = self._in_form([_message(PROBE), _message(ANSWER, "assistant")], self.name)
        text = self._probe(messages)
        if text is not None and not (PROBE in text and ANSWER in text):
            raise ValueError(
                f"{self.name}: the template leaves out the contents of messages. Expected "
                "{{ message['content'] }} for each message"
            )
        return render

    def _in_form(self, messages: Sequence[Message], where: str) -> list[Message]:
        """Messages with contents in the form that the template reads."""
        if not self.reads_parts:
            if any(isinstance(message["content"], list) for message in messages):
                raise ValueError(
                    f"{where}: a message has an image, but the chat template reads texts only. "
                    "Set chat_template to that of a vision-language model, or write the "
                    "placeholder into the text and the file into the column images"
                )
            return list(messages)
        formed = []
        for message in messages:
            content = message["content"]
            if isinstance(content, str):
                content = [{"type": "text", "text": content}]
            formed.append(message | {"content": content})
        return formed

    def without_marks(self) -> str:
        """Return the template for programs that do not know ``{% generation %}``."""
        source = GENERATION.sub(r"\1if true\2", self.source)
        return END_GENERATION.sub(r"\1endif\2", source)

    def render(
        self,
        messages: Sequence[Message],
        where: str,
        tools: list[Any] | None = None,
        with_prompt: bool = False,
    ) -> str:
        """Return the text of a conversation.

        Args:
            messages: turns of the conversation.
            where: file and line, for messages.
            tools: tools that the model may call.
            with_prompt: whether to add the beginning of the next answer.

        Raises:
            ValueError: if the template refuses the conversation.
        """
        return self._rendered(messages, where, tools, with_prompt, marks=False)[0]

    def render_marked(
        self, messages: Sequence[Message], where: str, tools: list[Any] | None = None
    ) -> tuple[str, list[Span]]:
        """Return the text of a conversation and the characters that the template marks."""
        return self._rendered(messages, where, tools, with_prompt=False, marks=True)

    def _rendered(
        self,
        messages: Sequence[Message],
        where: str,
        tools: list[Any] | None,
        with_prompt: bool,
        marks: bool,
    ) -> tuple[str, list[Span]]:
        formed = self._in_form(messages, where)
        render = self._render
        try:
            texts, spans = render(
                conversations=[formed],
                tools=tools,
                chat_template=self.source,
                add_generation_prompt=with_prompt,
                return_assistant_tokens_mask=marks,
                **self.tokens,
            )
        # A template may raise any error of Jinja or of Python.
        except Exception as error:
            roles = ", ".join(message["role"] for message in messages)
            raise ValueError(
                f"{where}: the chat template refuses the conversation ({roles}): "
                f"{type(error).__name__}: {error}"
            ) from error
        return texts[0], [(start, end) for start, end in (spans[0] if marks else ())]


def load_template(name: str | None, tokenizer: Any, base: Path = Path()) -> ChatTemplate | None:
    """Return the template of a recipe, or that of the tokenizer; None if there is none.

    Args:
        name: file of a template; ``chatml`` for the format with ``<|im_start|>`` and
            ``<|im_end|>``; None for the template of the tokenizer.
        tokenizer: tokenizer of the data.
        base: folder that relative paths start from.

    Raises:
        ValueError: for a file that does not exist or has no text.
    """
    files = getattr(tokenizer, "files", None)
    source: str | None = None if files is None else files.chat_template
    origin = "tokenizer: the chat template"
    if name is not None:
        source, origin = _read(name, base), f"chat_template: {name}"
    if source is None:
        return None
    tokens: dict[str, str] = {}
    for role in SPECIAL_ROLES:
        if files is not None and (token := files.token(role)) is not None:
            tokens[f"{role}_token"] = token
    inner = getattr(tokenizer, "inner", None)
    if inner is not None:
        tokens.setdefault("eos_token", inner.id_to_token(tokenizer.end))
    return ChatTemplate(source, tokens, origin)


def _message(content: Any, role: str = "user") -> Message:
    return {"role": role, "content": content}


def _read(name: str, base: Path) -> str:
    file = _file(name, base)
    try:
        return file.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise ValueError(f"chat_template: {file} cannot be read as text: {error}") from error


def _file(name: str, base: Path) -> Path:
    try:
        return CHATML if name == CHATML.stem else located(name, base)
    except ValueError as error:
        is_typo = bool(difflib.get_close_matches(name, [CHATML.stem]))
        problem = f"no file '{name}'. Did you mean {CHATML.stem}?" if is_typo else error
        raise ValueError(f"chat_template: {problem}") from error


def _renderer() -> Any:
    try:
        from transformers.utils.chat_template_utils import render_jinja_template
    except ImportError as error:
        raise ValueError(
            "chat templates need the package transformers. Install it with "
            'pip install "instil[text]"'
        ) from error
    return render_jinja_template
