"""Source ``sorting``: letters to sort, a text task that a small network learns in seconds."""

from __future__ import annotations

import random
from string import ascii_lowercase
from typing import Annotated

from annotated_types import Ge, Le
from typing_extensions import Doc

from instil.data.documents import Document
from instil.data.splits import Splits
from instil.data.token_packing import Context, of_documents
from instil.data.tokenizers import ByteTokenizer

SEED = 0
"""Seed of the prompts, independent of the run: all runs are evaluated on the same rows."""


def sorting(
    letters: Annotated[int, Ge(2), Doc("number of letters of a prompt")] = 8,
    alphabet: Annotated[int, Ge(2), Le(26), Doc("number of different letters")] = 10,
    rows: Annotated[int, Ge(1), Doc("number of training rows")] = 2048,
    held_out: Annotated[int, Doc("number of validation rows, and of test rows")] = 256,
    context: Annotated[
        Context | None,
        Doc(
            "position of the context, which is the answer and a sign; separate: in keys of its "
            "own, read: in front of the prompt, null: no context"
        ),
    ] = None,
    descending: Annotated[
        bool, Doc("descending order for every second prompt, as a domain of its own")
    ] = False,
    domain: Annotated[
        str | None, Doc("only rows of this domain, ascending or descending; null: all")
    ] = None,
) -> Splits:
    """Token rows whose prompt is a random sequence of letters and whose answer sorts it.

    A token is a letter, the sign after the prompt, or the end. No prompt occurs twice.

    Args:
        letters: number of letters of a prompt.
        alphabet: number of different letters.
        rows: number of training rows.
        held_out: number of validation rows, and of test rows.
        context: position of the context; None for no context.
        descending: whether every second prompt requests descending order.
        domain: only rows of this domain; None for all.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: if the letters do not make twice the number of different prompts needed.
    """
    num_prompts = rows + 2 * held_out
    # Rejecting repetitions stays fast only while at most half of all prompts are used.
    if 2 * num_prompts > alphabet**letters:
        raise ValueError(
            f"letters: {letters} letters of {alphabet} make {alphabet**letters} prompts, too few "
            f"for {num_prompts} rows. Use more letters"
        )
    draw = random.Random(SEED)
    prompts: dict[str, None] = {}
    while len(prompts) < num_prompts:
        prompts["".join(draw.choices(ascii_lowercase[:alphabet], k=letters))] = None
    examples = [
        _document(prompt, descending and index % 2 == 1, context is not None)
        for index, prompt in enumerate(prompts)
    ]
    parts = examples[:rows], examples[rows : rows + held_out], examples[rows + held_out :]
    length = 2 * letters + 1 + (letters + 1) * (context == "read")
    return of_documents(
        parts, ByteTokenizer(), length, prune=True, context=context or "separate", domain=domain
    )


def _document(sequence: str, is_descending: bool, has_context: bool) -> Document:
    answer = "".join(sorted(sequence, reverse=is_descending))
    sign, domain = ("<", "descending") if is_descending else (">", "ascending")
    context = f"{answer}=" if has_context else ""
    return Document(sequence, answer, f"{sequence}{sign}", context=context, domain=domain)
