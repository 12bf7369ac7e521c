"""Source ``arithmetic``: sums with digit-by-digit rationales and verifiable answers."""

from __future__ import annotations

import random
from typing import Annotated

from annotated_types import Ge
from typing_extensions import Doc

from instil.data.documents import Document
from instil.data.rationales import KEYS, RationaleOption, two_tasks, with_rationales
from instil.data.splits import Splits
from instil.data.token_packing import of_documents
from instil.data.token_verifier import set_verifier
from instil.data.tokenizers import ByteTokenizer
from instil.data.verifiers import Verifier, VerifierOption

SEED = 0
"""Seed of the problems, independent of the run: all runs are evaluated on the same rows."""
LAST_NUMBER = Verifier("last_number")
PREFIXES = ("", "+")
"""Beginnings of the prompts of both tasks: no further character is needed."""


def arithmetic(
    digits: Annotated[int, Ge(1), Doc("number of digits of both numbers of a sum")] = 3,
    rows: Annotated[int, Ge(1), Doc("number of training rows")] = 1024,
    held_out: Annotated[int, Ge(1), Doc("number of validation rows, and of test rows")] = 256,
    rationale: RationaleOption = "ignore",
    verifier: VerifierOption = LAST_NUMBER,
) -> Splits:
    """Token rows whose prompt is a sum of two numbers and whose answer is its value.

    A prompt is ``58+27=``. The rationale ``8+7+0=15=5+2+1=08=`` adds the digits from the last to
    the first, with the carry as the third number. A wrong rationale, for ``rationale:
    counterfactual`` and ``rationale: preference``, has a wrong sum of two digits, and its answer is
    the one that follows.

    A token is a character or the end. The rows are long enough for rationale and answer with every
    ``rationale``, so that a teacher can write both after a prompt. No problem occurs twice. The
    held-out problems do not depend on ``rows``.

    Args:
        digits: number of digits of both numbers of a sum.
        rows: number of training rows.
        held_out: number of validation rows, and of test rows.
        rationale: use of the rationale.
        verifier: check of generated answers.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: if the digits do not make twice the number of different problems needed.
    """
    num_problems = rows + 2 * held_out
    # Rejecting repetitions stays fast only while at most half of all problems are used.
    if 2 * num_problems > 100**digits:
        raise ValueError(
            f"digits: {digits} digits make {100**digits} problems, too few for {num_problems} "
            "rows. Use more digits, or fewer rows"
        )
    draw = random.Random(SEED)
    problems: dict[tuple[int, int], None] = {}
    while len(problems) < num_problems:
        problems[draw.randrange(10**digits), draw.randrange(10**digits)] = None
    # The first problems are held out: more training rows do not change them.
    errors = random.Random(SEED)
    documents = [_document(first, second, digits, errors) for first, second in problems]
    parts = documents[2 * held_out :], documents[:held_out], documents[held_out : 2 * held_out]
    prompt, steps, answer = (len(text) for text in _texts(0, 0, digits))
    length = len(PREFIXES[1]) + prompt + steps + answer
    tokenizer = ByteTokenizer()
    if rationale in KEYS:
        prefixes = None if rationale == "preference" else PREFIXES
        splits = two_tasks(
            parts, tokenizer, length, rationale, prune=True, prefixes=prefixes, separator=""
        )
        return set_verifier(splits, verifier)
    shown = with_rationales(parts, "") if rationale == "answer" else parts
    return set_verifier(of_documents(shown, tokenizer, length, prune=True), verifier)


def _document(first: int, second: int, digits: int, errors: random.Random) -> Document:
    prompt, steps, answer = _texts(first, second, digits)
    error = errors.randrange(digits), errors.randrange(1, 10)
    _, wrong_steps, wrong_answer = _texts(first, second, digits, error)
    return Document(
        prompt,
        answer,
        prompt,
        rationale=steps,
        wrong_rationale=wrong_steps,
        wrong_answer=wrong_answer,
    )


def _texts(
    first: int, second: int, digits: int, error: tuple[int, int] = (0, 0)
) -> tuple[str, str, str]:
    """Prompt, rationale and answer of a sum.

    Args:
        first: first number.
        second: second number.
        digits: number of digits of both.
        error: a position, counted from the last digit, and what its sum is too large by. A sum
            above 19 starts again at 0.
    """
    steps = []
    value = carry = 0
    for position in range(digits):
        one, other = (term // 10**position % 10 for term in (first, second))
        total = one + other + carry
        if position == error[0]:
            total = (total + error[1]) % 20
        steps.append(f"{one}+{other}+{carry}={total:02d}=")
        value += total % 10 * 10**position
        carry = total // 10
    value += carry * 10**digits
    prompt = f"{first:0{digits}d}+{second:0{digits}d}="
    return prompt, "".join(steps), f"{value:0{digits + 1}d}"
