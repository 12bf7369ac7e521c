"""Letters to be put in order: prompts and answers that a small net learns to write in seconds."""

from __future__ import annotations

import random
from string import ascii_lowercase
from typing import Annotated

from annotated_types import Ge, Le

from instil.data.documents import Document
from instil.data.splits import Splits
from instil.data.token_rows import Context, of_documents
from instil.data.tokenizers import Bytes

SEED = 0  # not the run's: all seeds must be judged on the same rows


def sorting(
    letters: Annotated[int, Ge(2)] = 8,
    alphabet: Annotated[int, Ge(2), Le(26)] = 10,
    rows: Annotated[int, Ge(1)] = 2048,
    held_out: int = 256,
    context: Context | None = None,
    descending: bool = False,
    domain: str | None = None,
) -> Splits:
    """Rows of tokens of which the prompt is some ``letters`` of the first ``alphabet`` of them, and the answer the same in order.

    ``rows`` to train on, ``held_out`` each to validate and to test on; no prompt is there twice. A token is a letter, the sign behind the prompt, or
    the end. ``context``: the answer and a sign, beside the row or ``read`` before the prompt. ``descending``: every other prompt, of another sign,
    asks for the opposite order, a domain of its own; ``domain`` keeps only the rows that are ``ascending`` or ``descending``. Raises ValueError where
    there are not so many prompts.
    """
    wanted, draw = rows + 2 * held_out, random.Random(SEED)
    if 2 * wanted > alphabet**letters:
        raise ValueError(
            f"{letters} letters of {alphabet} make {alphabet**letters} prompts, too few for {wanted} rows; take more letters"
        )
    found: dict[str, None] = {}
    while len(found) < wanted:
        found["".join(draw.choices(ascii_lowercase[:alphabet], k=letters))] = None
    made = [
        _document(given, descending and number % 2 == 1, context is not None)
        for number, given in enumerate(found)
    ]
    parts = made[:rows], made[rows : rows + held_out], made[rows + held_out :]
    length = 2 * letters + 1 + (letters + 1) * (context == "read")
    return of_documents(
        parts, Bytes(), length, prune=True, context=context or "beside", domain=domain
    )


def _document(given: str, down: bool, helps: bool) -> Document:
    answer = "".join(sorted(given, reverse=down))
    prompt, domain = (f"{given}<", "descending") if down else (f"{given}>", "ascending")
    return Document(given, answer, prompt, context=f"{answer}=" if helps else "", domain=domain)
