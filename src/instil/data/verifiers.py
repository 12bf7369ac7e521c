"""Verifiers: functions that decide whether a generated answer is correct."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Literal

from annotated_types import Ge
from typing_extensions import Doc

Check = Callable[[str, str], bool]
"""Maps a generated answer and the answer of the data to whether the first one is correct."""
CheckName = Literal["exact_match", "last_number"]
NUMBER = re.compile(r"(?:(?<![\w)])-)?(?:\d+(?:,\d{3}(?!\d))*(?:\.\d+)?|(?<![\w.])\.\d+)")
"""Number of a text. The minus sign between two numbers is a difference and not part of one."""
MAX_DIGITS = 4000
"""Largest number of digits of a number; generated texts may repeat a digit without end."""


def exact_match(answer: str, reference: str) -> bool:
    """Whether two texts are equal, apart from white space around them.

    Example:
        >>> exact_match(" 42", "42 "), exact_match("42.", "42")
        (True, False)
    """
    return answer.strip() == reference.strip()


def last_number(answer: str, reference: str) -> bool:
    """Whether the last numbers of two texts have the same value.

    Commas between groups of three digits are ignored. A text without a number is never correct.

    Example:
        >>> last_number("7+8=15, so it is 1,015.0", "The answer is 1015")
        True
        >>> last_number("I do not know", "1015")
        False
    """
    numbers = [NUMBER.findall(text)[-1:] for text in (answer, reference)]
    if not all(numbers):
        return False
    digits: list[str] = [matches[0].replace(",", "") for matches in numbers]
    if max(map(len, digits)) > MAX_DIGITS:
        return digits[0] == digits[1]
    return Decimal(digits[0]) == Decimal(digits[1])


CHECKS: Mapping[CheckName, Check] = {"exact_match": exact_match, "last_number": last_number}


@dataclass(frozen=True)
class Verifier:
    """Check of generated answers, and the number of answers that an evaluation checks.

    Example:
        >>> Verifier("last_number").accepts("1 + 1 = 2", "2")
        True
    """

    check: Annotated[
        CheckName,
        Doc(
            "exact_match: the answer equals that of the data; last_number: the last number of the "
            "answer has the value of the last number of the data's answer"
        ),
    ] = "exact_match"
    samples: Annotated[
        int,
        Ge(0),
        Doc("number of sampled answers per prompt, for pass@k; 0: only the most likely answer"),
    ] = 0
    rows: Annotated[int, Ge(1), Doc("largest number of test rows with generated answers")] = 256

    def accepts(self, answer: str, reference: str) -> bool:
        """Whether an answer is correct.

        Args:
            answer: generated text.
            reference: answer of the data.
        """
        return CHECKS[self.check](answer, reference)


VerifierOption = Annotated[
    Verifier | None, Doc("check of generated answers; null: answers are not checked")
]
