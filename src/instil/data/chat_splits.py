"""Division of conversations into splits, and notes about rows that are left out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch

from instil.data.groups import whole_groups
from instil.data.ragged_fitting import Integers
from instil.data.splits import HOLD_OUT_SEED, balanced_order
from instil.data.tables import SPLITS
from instil.data.token_arrays import TokenArrays

ENDLESS = "have an answer without an end token, so the student does not learn to end there"
REASONS = {
    "empty": "have an empty answer, or none, and are left out",
    "unlearned": "have no token to learn and are left out",
    "endless": ENDLESS,
    "equal": "have a rejected answer that equals the preferred one and are left out",
    "toolless": "have tools or calls of tools that the chat template does not write",
}
"""Ends of the notes on rows, by the names in ``Tally``."""


def texts_of_splits(
    arrays: Mapping[str, TokenArrays], shares: tuple[float, float], step: int = 1
) -> dict[str, tuple[TokenArrays, Integers]]:
    """Return the arrays and the texts of each split; missing splits are held out of training.

    Answers to one prompt are held out together, and so are equal texts.

    Args:
        arrays: texts of the splits that have files.
        shares: shares of validation and test texts, for splits without files.
        step: number of texts of a row; the first of each row is returned.

    Raises:
        ValueError: without training files, for a split without texts, and for a share that leaves
            one without texts.
    """
    if "train" not in arrays:
        raise ValueError(f"files: no training files, only {', '.join(arrays) or 'nothing'}")
    for split, part in arrays.items():
        if not len(part):
            problem = "; ".join(tally_notes(part, split)) or "the files are empty"
            raise ValueError(f"files.{split}: there is no text to learn: {problem}")
    train = arrays["train"]
    num_rows = len(train) // step
    order = balanced_order(torch.zeros(num_rows), HOLD_OUT_SEED).tolist()
    group = _origins(train)[::step] if len(arrays) < len(SPLITS) else []
    texts: dict[str, tuple[TokenArrays, Integers]] = {}
    for split, share in (("test", shares[1]), ("validation", shares[0])):
        if split in arrays:
            texts[split] = (arrays[split], np.arange(0, len(arrays[split]), step))
            continue
        count = round(share * num_rows)
        chosen = set(whole_groups(order, group, count)) if 0 < count < len(order) else set(order)
        order = [row for row in order if row not in chosen]
        if not order:
            raise ValueError(
                f"{split}: a share of {share} of {num_rows} texts leaves a split empty. Set "
                f"files.{split}, or another share"
            )
        texts[split] = (train, step * np.array(sorted(chosen)))
    texts["train"] = (train, step * np.array(sorted(order)))
    return texts


def _origins(part: TokenArrays) -> list[int]:
    """Number of the prompt of each text, with its images, or of a text without a prompt."""
    origins: list[int] = []
    columns = part.start, part.texts["stop"], part.texts["first_learned"]
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for text, (start, stop, num_read) in enumerate(rows):
        # The first token is never learned.
        end = start + num_read if num_read > 1 else stop
        digest = hashlib.blake2b(part.tokens[start:end].tobytes(), digest_size=8)
        digest.update(repr((num_read > 1, part.images_of(text))).encode())
        origins.append(int.from_bytes(digest.digest(), "little"))
    return origins


def tally_notes(part: TokenArrays | None, split: str) -> list[str]:
    """Return sentences about rows of a file that were left out or lack an end token.

    Args:
        part: texts of the files; None without files.
        split: name of the split.
    """
    if part is None:
        return []
    notes = []
    for name, count in part.tally.counts.items():
        first = part.tally.first[name]
        notes.append(
            f"{split} files: {count} of {part.tally.total} rows {REASONS[name]} (first: {first})"
        )
    return notes
