"""Batches with two rows of tokens for each sample, one of them under prefixed keys."""

from __future__ import annotations

from instil.items.batch import Batch

REJECTED = "rejected_"
"""Beginning of the batch keys of the rejected texts of preference pairs."""


def prefixed_rows(batch: Batch, prefix: str) -> Batch:
    """Return the batch with the rows under prefixed keys in place of the others.

    Args:
        batch: rows of tokens, and further ones under keys that begin with ``prefix``.
        prefix: beginning of the keys of the further rows, such as ``rejected_``.

    Example:
        >>> prefixed_rows({"input_ids": 1, "rejected_input_ids": 2, "index": 3}, "rejected_")
        {'input_ids': 2, 'index': 3}
    """
    own = {
        key.removeprefix(prefix): value for key, value in batch.items() if key.startswith(prefix)
    }
    shared = {key: value for key, value in batch.items() if not key.startswith(prefix)}
    return shared | own
