"""Generated text in the tokens of a teacher with another tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, takewhile
from typing import NamedTuple

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch
from instil.data.aligned import PREFIX, AlignedRows
from instil.data.alignment import spans
from instil.data.tokenizers import Tokenizer

NO_SPAN = -1


class TeacherRow(NamedTuple):
    """Teacher's tokens of one generated text, and the spans of both sides.

    Attributes:
        prompt: tokens that are input only.
        tokens: tokens of the generated text, with the end token if the text has ended.
        span: span index of each of these tokens; -1 for none.
        student_span: span index of each generated token of the student; -1 for none.
    """

    prompt: list[int]
    tokens: list[int]
    span: list[int]
    student_span: list[int]


class Retokenizer:
    """Adds the teacher's tokens of generated text to a batch.

    Args:
        samples: rows of both tokenizers, with whole vocabularies.

    Raises:
        ValueError: for reduced vocabularies, which may lack tokens of a generated text.
    """

    def __init__(self, samples: AlignedRows):
        if samples.tokens or samples.teacher_rows.tokens:
            raise ValueError(
                "data.prune: generated text may have tokens that the data do not have, so a "
                "teacher with another tokenizer needs its whole vocabulary. Set data.prune to false"
            )
        self.student: Tokenizer = samples.tokenizer
        self.teacher: Tokenizer = samples.teacher_rows.tokenizer
        self.length = samples.teacher_rows.length

    def __call__(self, batch: Batch, text: Batch) -> Batch:
        """Return generated rows with the same text in the teacher's tokens.

        Args:
            batch: rows of the data, with those of the teacher.
            text: the same rows with text that the student has generated after the prompts:
                ``input_ids``, ``valid`` and ``token`` (N, T).

        Returns:
            ``text`` with ``span`` (N, T) and the keys ``teacher_input_ids``,
            ``teacher_attention_mask``, ``teacher_valid``, ``teacher_label`` and ``teacher_span``
            (N, T') of the generated text. A text that is too long for the teacher's rows is cut
            there, and the student's tokens behind the cut have no span.
        """
        rows = [self._row(batch, text, i) for i in range(len(text["input_ids"]))]
        student_span = torch.full(text["token"].shape, NO_SPAN)
        for i, row in enumerate(rows):
            student_span[i, text["valid"][i].cpu()] = torch.tensor(
                row.student_span, dtype=torch.int64
            )
        device = text["token"].device
        teacher = {key: value.to(device) for key, value in self._tensors(rows).items()}
        mask = batch[f"{PREFIX}attention_mask"]
        teacher["attention_mask"] = teacher["attention_mask"].to(mask.dtype)
        others = {key: value for key, value in text.items() if not _describes_text(key)}
        prefixed = {f"{PREFIX}{key}": value for key, value in teacher.items()}
        return others | prefixed | {"span": student_span.to(device)}

    def _row(self, batch: Batch, text: Batch, i: int) -> TeacherRow:
        generated = text["token"][i][text["valid"][i]].tolist()
        prompt = self._prompt(batch, text, i)
        if not generated:
            return TeacherRow(prompt, [], [], [])
        has_ended = generated[-1] in self.student.ends
        content = generated[:-1] if has_ended else generated
        written = self.student.decode(content)
        tokens, num_bytes = self.teacher.encode(written)
        student_span = [NO_SPAN] * len(content)
        span = [NO_SPAN] * len(tokens)
        # Special tokens in the middle have no text, and a text may consist of them.
        if tokens and content:
            student_span, span = spans(bytes_of_tokens(self.student, content), num_bytes)
        if has_ended:
            last = max(span, default=NO_SPAN) + 1
            student_span = [*student_span, last]
            tokens = [*tokens, self.teacher.end]
            span = [*span, last]
        return _fitted(TeacherRow(prompt, tokens, span, student_span), self.length + 1)

    def _prompt(self, batch: Batch, text: Batch, i: int) -> list[int]:
        """Teacher's tokens of all that the student read before its first token."""
        teacher_start = _first(batch[f"{PREFIX}valid"][i])
        prompt: list[int] = batch[f"{PREFIX}input_ids"][i, : teacher_start + 1].tolist()
        # A longer prompt than that of the data has tokens of the data's answer.
        start, end = (_first(side["valid"][i]) for side in (batch, text))
        further = self.student.decode(text["input_ids"][i, start + 1 : end + 1].tolist())
        return [*prompt, *self.teacher.encode(further)[0]]

    def _tensors(self, rows: Sequence[TeacherRow]) -> dict[str, Tensor]:
        """Teacher's keys (N, T') of a batch."""
        shape = len(rows), self.length + 1
        ids = torch.full(shape, self.teacher.end)
        span = torch.full(shape, NO_SPAN)
        is_token = torch.zeros(shape, dtype=torch.bool)
        is_target = torch.zeros(shape, dtype=torch.bool)
        for i, row in enumerate(rows):
            start = len(row.prompt)
            end = start + len(row.tokens)
            ids[i, :end] = torch.tensor([*row.prompt, *row.tokens])
            span[i, start:end] = torch.tensor(row.span, dtype=torch.int64)
            is_token[i, :end] = True
            is_target[i, start:end] = True
        return {
            "input_ids": ids[:, :-1],
            "attention_mask": is_token[:, :-1].long(),
            "valid": is_target[:, 1:],
            "label": ids[:, 1:].masked_fill(~is_target[:, 1:], UNLABELLED),
            "span": span[:, 1:],
        }


def bytes_of_tokens(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[int]:
    """Return the number of UTF-8 bytes that each token adds to the text of all tokens.

    Tokens of a part of a character add nothing until the character is complete, so that every end
    of a token is an end of a character.

    Args:
        tokenizer: tokenizer of the tokens.
        tokens: token ids, also a sequence that the tokenizer itself would not produce.
    """
    text = tokenizer.decode(tokens)
    ends = [0]
    for length in range(1, len(tokens)):
        # The text of the first tokens differs from the whole where a character is incomplete.
        shared = _common_prefix(tokenizer.decode(tokens[:length]), text)
        ends.append(max(ends[-1], len(shared.encode(errors="replace"))))
    ends.append(len(text.encode(errors="replace")))
    return [end - start for start, end in pairwise(ends)]


def _common_prefix(first: str, second: str) -> str:
    equal = takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    return first[: sum(1 for _ in equal)]


def _fitted(row: TeacherRow, length: int) -> TeacherRow:
    """Cut a row to a number of tokens; spans that are cut do not count on either side."""
    prompt = row.prompt[:length]
    room = length - len(prompt)
    if len(row.tokens) <= room:
        return row
    first_cut = row.span[room]
    span = [index if index < first_cut else NO_SPAN for index in row.span[:room]]
    student_span = [index if index < first_cut else NO_SPAN for index in row.student_span]
    return TeacherRow(prompt, row.tokens[:room], span, student_span)


def _first(is_valid: Tensor) -> int:
    """First valid position; the last one if there is none."""
    return int(is_valid.int().argmax()) if bool(is_valid.any()) else len(is_valid) - 1


def _describes_text(key: str) -> bool:
    """Whether a key belongs to the data's text in the teacher's tokens, or to its spans."""
    return key.startswith(PREFIX) or key == "span"
