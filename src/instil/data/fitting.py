"""Prompts and answers that are longer than a row of tokens."""

from __future__ import annotations

from typing import Literal, NamedTuple

from instil.data.documents import Document

TooLongPolicy = Literal["error", "drop", "truncate"]


class TooLong(NamedTuple):
    """Handling of prompts and answers that are longer than a row.

    Attributes:
        policy: option ``data.too_long``.
        cut: option ``data.cut``, whether the end of an answer may be cut.
    """

    policy: TooLongPolicy = "error"
    cut: bool = False


REFUSED = TooLong()


class Fitted:
    """Fit of prompts and answers into rows, with a count of those that were too long.

    Args:
        too_long: handling of prompts and answers that do not fit.
    """

    def __init__(self, too_long: TooLong):
        self.policy = too_long.policy
        self.cut = too_long.cut
        self.dropped = 0
        self.truncated = 0
        self.total = 0

    def prompt(
        self,
        document: Document,
        prompt: list[int],
        answer: int,
        length: int,
        begin: int = 0,
        end: int = 1,
    ) -> list[int] | None:
        """Return the input tokens of a prompt, or None for a document that is left out.

        Args:
            document: document of the prompt, for the message.
            prompt: tokens of the prompt; the first ``begin`` are never removed.
            answer: number of tokens of the answer.
            length: length of a row in tokens.
            begin: number of tokens that start the text.
            end: number of tokens that end the text.

        Raises:
            ValueError: if prompt and answer are longer than a row, and may not be cut or dropped.
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
        """Return a sentence about the documents that were too long; empty if there were none."""
        if self.dropped:
            return f"{self.dropped} of {self.total} were longer than a row and left out"
        if self.truncated:
            return (
                f"{self.truncated} of {self.total} prompts lost their beginning to fit into a row"
            )
        return ""


def too_long(document: Document, prompt: int, answer: int, length: int) -> str:
    """Return the message about a prompt and an answer that are longer than a row.

    Args:
        document: document of the prompt.
        prompt: number of tokens of the prompt.
        answer: number of tokens of the answer.
        length: length of a row in tokens.
    """
    problem = f"{document.name} has {prompt} tokens of prompt and {answer} of answer"
    cut = "" if prompt > length else ", cut the answer (cut=true)"
    return (
        f"{problem}, more than a row of {length}. Make the rows longer{cut}, or leave "
        "out or shorten such prompts (too_long=drop or too_long=truncate)"
    )
