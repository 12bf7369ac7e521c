"""Tokens of conversations, with a mark at those that are learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from instil.data.chat_chunk import Chunk
from instil.data.chat_rows import ChatRow, chat_row
from instil.data.chat_template import ChatTemplate, Span, answer_spans, marked_answers

LossOn = Literal["assistant", "completion", "all"]
Offsets = NDArray[np.int64]
"""First and last character of each token (T, 2)."""
MAX_BYTES = (1 << 15) - 1
"""Largest number of bytes of a token in ``Encoded.info``."""
LEARNED = 1 << 15
"""Bit of ``Encoded.info`` that marks a learned token."""


class Encoded(NamedTuple):
    """Tokens of one text.

    Attributes:
        tokens: token ids (T,), int32.
        info: number of UTF-8 bytes of each token (T,), uint16, with the bit ``LEARNED``.
        domain: subject of the text.
        teacher_id: teacher of the row; None for none.
    """

    tokens: NDArray[np.int32]
    info: NDArray[np.uint16]
    domain: str
    teacher_id: int | str | None


@dataclass
class Tally:
    """Number of rows with a peculiarity, and the first of them.

    Attributes:
        counts: number of rows by peculiarity.
        first: file and line of the first row by peculiarity.
        total: number of all rows.
    """

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    total: int = 0

    def add(self, name: str, where: str) -> None:
        """Count a row."""
        self.counts[name] = self.counts.get(name, 0) + 1
        self.first.setdefault(name, where)

    def merge(self, other: Tally) -> None:
        """Add the counts of later rows."""
        self.total += other.total
        for name, count in other.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
            self.first.setdefault(name, other.first[name])


class ChatEncoder:
    """Encoder of conversations, prompts with answers, and plain texts.

    Args:
        tokenizer: tokenizer of the data.
        template: template of conversations; None for none.
        loss_on: tokens that are learned. assistant: all answers. completion: the last answer, or
            all that follows the prompt. all: every token.
    """

    def __init__(self, tokenizer: Any, template: ChatTemplate | None, loss_on: LossOn):
        self.tokenizer = tokenizer
        self.template = template
        self.loss_on = loss_on

    def encode_chunk(self, chunk: Chunk) -> tuple[list[Encoded], Tally]:
        """Encode rows of a file.

        Args:
            chunk: rows.

        Returns:
            The texts, and the number of rows that were left out or lack an end token.

        Raises:
            ValueError: for a row of another form, or one that the template refuses.
        """
        texts = []
        tally = Tally()
        for index, raw in enumerate(chunk.rows):
            if isinstance(raw, str) and not raw.strip():
                continue
            row = chat_row(raw, f"{chunk.name}, {chunk.unit} {chunk.first + index}")
            tally.total += 1
            if (text := self._encode(row, tally)) is not None:
                texts.append(text)
        return texts, tally

    def _encode(self, row: ChatRow, tally: Tally) -> Encoded | None:
        if self.loss_on != "all" and row.has_empty_answer():
            tally.add("empty", row.where)
            return None
        encode = self._plain if row.text is not None else self._conversation
        tokens, num_bytes, is_learned = encode(row, tally)
        # The first token has no earlier one to be predicted from.
        is_learned[:1] = False
        if not is_learned.any():
            tally.add("unlearned", row.where)
            return None
        info = np.minimum(num_bytes, MAX_BYTES).astype(np.uint16)
        info[is_learned] |= LEARNED
        return Encoded(tokens.astype(np.int32), info, row.domain, row.teacher_id)

    def _plain(self, row: ChatRow, tally: Tally) -> tuple[Any, Any, Any]:
        """Tokens, bytes and mask of a text, or of a prompt with its answer."""
        assert row.text is not None
        begin = [] if self.tokenizer.bos is None else [self.tokenizer.bos]
        prompt, bytes_of_prompt = self.tokenizer.encode(row.prompt or "")
        answer, bytes_of_answer = self.tokenizer.encode(row.text)
        end = [] if row.is_cut else [self.tokenizer.end]
        tokens = np.array([*begin, *prompt, *answer, *end])
        num_bytes = [*[0] * len(begin), *bytes_of_prompt, *bytes_of_answer, *[0] * len(end)]
        num_read = len(begin) + (0 if self.loss_on == "all" else len(prompt))
        return tokens, np.array(num_bytes), np.arange(len(tokens)) >= num_read

    def _conversation(self, row: ChatRow, tally: Tally) -> tuple[Any, Any, Any]:
        """Tokens, bytes and mask of a conversation."""
        if self.template is None:
            raise ValueError(
                f"{row.where}: a conversation, but the tokenizer has no chat template. Set "
                "chat_template to a file, or to chatml"
            )
        text, spans, starts = self._answers(row, self.template)
        tokens, offsets = tokens_and_offsets(self.tokenizer, text)
        self._check_boundaries(row, text, starts, tokens)
        is_learned = np.ones(len(tokens), bool)
        if self.loss_on != "all":
            is_learned = covered(offsets, spans)
            if not self._keep_ends(tokens, offsets, spans, is_learned, row.is_cut):
                tally.add("endless", row.where)
        return tokens, bytes_of(text, offsets), is_learned

    def _answers(self, row: ChatRow, template: ChatTemplate) -> tuple[str, list[Span], list[int]]:
        """Text of a conversation, the learned characters, and checked ends of prompts."""
        first = self._first_message(row)
        if self.loss_on == "all":
            return template.render(row.messages, row.where, row.tools), [], []
        if template.has_marks:
            text, spans = marked_answers(template, row, first)
            return text, spans, []
        text = template.render(row.messages, row.where, row.tools)
        spans = answer_spans(template, text, row, first)
        return text, spans, [start for start, _ in spans]

    def _first_message(self, row: ChatRow) -> int:
        """Index of the first message whose answer may be learned."""
        if self.loss_on != "completion" or row.num_prompt:
            return row.num_prompt
        return row.answers()[-1]

    def _check_boundaries(
        self, row: ChatRow, text: str, starts: Sequence[int], tokens: NDArray[Any]
    ) -> None:
        """Check that the tokens of each prompt are the first tokens of the whole."""
        for start in starts:
            prompt, _ = self.tokenizer.encode(text[:start])
            if not np.array_equal(tokens[: len(prompt)], prompt):
                raise ValueError(
                    f"{row.where}: the tokens of a prompt are not the first tokens of the "
                    f"conversation; the tokenizer joins text around {text[start - 8 : start + 8]!r}"
                    ". Expected a template with {% generation %} marks, or one whose prompt ends "
                    "with a special token or a new line. Set chat_template"
                )

    def _keep_ends(
        self,
        tokens: NDArray[Any],
        offsets: Offsets,
        spans: Sequence[Span],
        is_learned: NDArray[np.bool_],
        is_cut: bool,
    ) -> bool:
        """Unmark what follows the last end token of each answer; return whether all have one."""
        is_end = np.isin(tokens, self.tokenizer.ends)
        all_end = True
        for index, span in enumerate(spans):
            inside = covered(offsets, [span]).nonzero()[0]
            ends = inside[is_end[inside]]
            if is_cut and index == len(spans) - 1:
                is_learned[ends] = False
            elif len(ends):
                # Templates add text such as a new line, which no model writes after its end.
                is_learned[inside[inside > ends[-1]]] = False
            else:
                all_end = False
        return all_end


def covered(offsets: Offsets, spans: Sequence[Span]) -> NDArray[np.bool_]:
    """Return the tokens (T,) that have a character in one of the spans."""
    is_covered = np.zeros(len(offsets), bool)
    for start, end in spans:
        is_covered |= (offsets[:, 0] < end) & (offsets[:, 1] > start)
    return is_covered


def tokens_and_offsets(tokenizer: Any, text: str) -> tuple[NDArray[np.int32], Offsets]:
    """Return the tokens (T,) of a text and their first and last characters (T, 2)."""
    inner = getattr(tokenizer, "inner", None)
    if inner is None:
        data = np.frombuffer(text.encode(), np.uint8).astype(np.int32)
        # The first byte of a character has another form than those that follow.
        character = ((data & 0xC0) != 0x80).cumsum() - 1
        return data, np.stack([character, character + 1], 1)
    encoding = inner.encode(text, add_special_tokens=False)
    offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
    return np.array(encoding.ids, np.int32), offsets


def bytes_of(text: str, offsets: Offsets) -> NDArray[np.int64]:
    """Return the number of UTF-8 bytes (T,) that each token adds to a text.

    The first of several tokens of one character counts all of its bytes.
    """
    if not len(offsets):
        return np.zeros(0, np.int64)
    ends = np.maximum.accumulate(offsets[:, 1])
    # The last token counts what follows it.
    ends[-1] = len(text)
    if not text.isascii():
        points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        sizes = 1 + (points > 0x7F) + (points > 0x7FF) + (points > 0xFFFF)
        ends = np.concatenate([[0], sizes.cumsum()])[ends]
    return np.diff(ends, prepend=0)
