"""Prompts and answers that are longer than a row of tokens."""

from __future__ import annotations

from typing import Literal, NamedTuple

from instil.data.documents import Document

TooLongPolicy = Literal["error", "drop", "truncate"]


class TooLong(NamedTuple):
    """What becomes of a prompt and an answer that are longer than a row: ``data.too_long`` and ``data.cut``."""

    policy: TooLongPolicy = "error"
    cut: bool = False


REFUSED = TooLong()


class Fitted:
    """Fits prompts and answers into rows, and counts those that were too long."""

    def __init__(self, too_long: TooLong):
        self.policy, self.cut = too_long
        self.dropped = self.truncated = self.total = 0

    def prompt(
        self,
        document: Document,
        prompt: list[int],
        answer: int,
        length: int,
        begin: int = 0,
        end: int = 1,
    ) -> list[int] | None:
        """Return the part of a prompt that is read, None for a document that is left out.

        Args:
            document: where the prompt stands, for the message.
            prompt: its tokens; of these the first ``begin`` always stay.
            answer: number of tokens of the answer.
            length: of a row.
            begin: number of tokens that begin the text.
            end: number of tokens that end it.

        Raises:
            ValueError: if prompt and answer are longer than a row and have to fit.
        """
        self.total += 1
        learned = answer + end
        if len(prompt) <= length and (len(prompt) + learned <= length + 1 or self.cut):
            return prompt
        if self.policy == "drop":
            self.dropped += 1
            return None
        room = max(begin + 1, length + 1 - learned)
        if self.policy == "error" or (room + learned > length + 1 and not self.cut):
            raise ValueError(too_long(document, len(prompt), answer, length))
        self.truncated += 1
        return [*prompt[:begin], *prompt[len(prompt) - room + begin :]]

    def note(self) -> str:
        """What was left out, in words; empty where nothing was."""
        if self.dropped:
            return f"{self.dropped} of {self.total} were longer than a row and left out"
        if self.truncated:
            return (
                f"{self.truncated} of {self.total} prompts lost their beginning to fit into a row"
            )
        return ""


def too_long(document: Document, prompt: int, answer: int, length: int) -> str:
    """The message about a prompt and an answer of so many tokens."""
    what = f"{document.name} has {prompt} tokens of prompt and {answer} of answer"
    cut = "" if prompt > length else ", cut the answer (cut=true)"
    return (
        f"{what}, more than a row of {length}. Make the rows longer{cut}, or say what becomes of "
        "such prompts (too_long=drop or too_long=truncate)"
    )
