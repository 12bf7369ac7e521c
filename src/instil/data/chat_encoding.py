"""Tokens of conversations, with a mark at those that are learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from instil.data.chat_answers import answer_spans, has_tools, marked_answers
from instil.data.chat_chunk import Chunk
from instil.data.chat_images import ImageProcessor
from instil.data.chat_offsets import Offsets, bytes_of, covered, tokens_and_offsets
from instil.data.chat_rows import ChatRow, chat_row
from instil.data.chat_tally import Tally
from instil.data.chat_template import ChatTemplate, Span
from instil.data.image_files import located_images
from instil.data.preference_rows import rejected_row

LossOn = Literal["assistant", "completion", "all"]
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
        images: files or data URLs of its images.
    """

    tokens: NDArray[np.int32]
    info: NDArray[np.uint16]
    domain: str
    teacher_id: int | str | None
    images: tuple[str, ...] = ()


class ChatEncoder:
    """Encoder of conversations, prompts with answers, and plain texts.

    Args:
        tokenizer: tokenizer of the data.
        template: template of conversations; None for none.
        loss_on: tokens that are learned. assistant: all answers. completion: the last answer, or
            all that follows the prompt. all: every token.
        images: processor of the images; None for a model of texts.
        preferences: whether the rejected text of each row follows the preferred one.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: ChatTemplate | None,
        loss_on: LossOn,
        images: ImageProcessor | None = None,
        preferences: bool = False,
    ):
        self.tokenizer = tokenizer
        self.template = template
        self.loss_on = loss_on
        self.images = images
        self.preferences = preferences

    def encode_chunk(self, chunk: Chunk) -> tuple[list[Encoded], Tally]:
        """Encode rows of a file.

        Args:
            chunk: rows.

        Returns:
            The texts, and the number of rows that were left out or lack an end token.

        Raises:
            ValueError: for a row of another form, or one that the template refuses.
        """
        texts: list[Encoded] = []
        tally = Tally()
        for index, raw in enumerate(chunk.rows):
            if isinstance(raw, str) and not raw.strip():
                continue
            where = f"{chunk.name}, {chunk.unit} {chunk.first + index}"
            rows = [chat_row(raw, where)]
            if self.preferences:
                rows.append(chat_row(rejected_row(raw, where), where))
            tally.total += 1
            texts += self._encode_all([_located(row, chunk) for row in rows], tally)
        return texts, tally

    def _encode_all(self, rows: Sequence[ChatRow], tally: Tally) -> list[Encoded]:
        """Encode the texts of a row; none if one of them cannot be learned."""
        texts = []
        for row in rows:
            if (text := self._encode(row, tally)) is None:
                return []
            texts.append(text)
        if self.preferences and np.array_equal(texts[0].tokens, texts[1].tokens):
            tally.add("equal", rows[0].where)
            return []
        return texts

    def _encode(self, row: ChatRow, tally: Tally) -> Encoded | None:
        if self.loss_on != "all" and row.has_empty_answer():
            tally.add("empty", row.where)
            return None
        encode = self._plain if row.text is not None else self._conversation
        tokens, num_bytes, is_learned = self._with_images(row, *encode(row, tally))
        # The first token has no earlier one to be predicted from.
        is_learned[:1] = False
        if not is_learned.any():
            tally.add("unlearned", row.where)
            return None
        info = np.minimum(num_bytes, MAX_BYTES).astype(np.uint16)
        info[is_learned] |= LEARNED
        return Encoded(tokens.astype(np.int32), info, row.domain, row.teacher_id, row.images)

    def _with_images(
        self, row: ChatRow, tokens: Any, num_bytes: Any, is_learned: Any
    ) -> tuple[Any, Any, Any]:
        """Tokens, bytes and mask with the tokens of images, which are never learned."""
        if self.images is None:
            if row.images:
                raise ValueError(
                    f"{row.where}: the row has images, but there is no processor of images in the "
                    "folder of the tokenizer. Expected the folder of a vision-language model. Set "
                    "data.tokenizer to it"
                )
            return tokens, num_bytes, is_learned
        tokens, origin = self.images.expanded(tokens, row.images, row.where)
        is_text = origin >= 0
        return tokens, np.where(is_text, num_bytes[origin], 0), is_text & is_learned[origin]

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
        if not has_tools(text, row):
            tally.add("toolless", row.where)
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
            is_cut_here = is_cut and index == len(spans) - 1
            if len(ends):
                # Templates add text such as a new line, which no model writes after its end.
                is_learned[inside[inside > ends[-1]]] = False
            if is_cut_here:
                is_learned[ends] = False
            elif not len(ends):
                all_end = False
        return all_end


def _located(row: ChatRow, chunk: Chunk) -> ChatRow:
    """Return a row with the paths of its images from the folder of the file."""
    if not row.images:
        return row
    return replace(row, images=located_images(row.images, chunk.folder))
