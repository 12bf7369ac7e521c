"""Data set of preference pairs of texts, read from memory-mapped files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from instil.core import Batch
from instil.data.chat_images import ImageProcessor
from instil.data.ragged_fitting import Fit, Integers, Truncation, fit_texts
from instil.data.ragged_rows import RaggedRows
from instil.data.samples import Rows
from instil.data.token_arrays import TokenArrays
from instil.data.tokenizers import Tokenizer
from instil.items.prefixed_rows import REJECTED


class RaggedPairs(RaggedRows):
    """Rows of preferred texts, with the rejected ones under keys that begin with ``rejected_``.

    Args:
        arrays: tokens of all texts.
        fits: parts of the preferred and of the rejected text for each row.
        row_keys: one integer per row by batch key.
        length: largest length T of a row.
        tokenizer: tokenizer of the rows.
        tokens: token ids of the tokenizer by the ids of a reduced vocabulary; empty for the whole
            vocabulary.
        images: processor of the images; None for texts only.
    """

    def __init__(
        self,
        arrays: TokenArrays,
        fits: Sequence[Fit],
        row_keys: Mapping[str, Tensor],
        length: int,
        tokenizer: Tokenizer,
        tokens: Sequence[int] = (),
        images: ImageProcessor | None = None,
    ):
        preferred, rejected = fits
        super().__init__(arrays, preferred, row_keys, length, tokenizer, tokens, images)
        self.rejected = RaggedRows(arrays, rejected, {}, length, tokenizer, tokens, images)

    def inputs(self, rows: Tensor) -> Batch:
        return super().inputs(rows) | self._rejected_batch(rows)

    def __getitems__(self, rows: Rows) -> Batch:
        return super().__getitems__(rows) | self._rejected_batch(rows)

    def _rejected_batch(self, rows: Rows) -> Batch:
        batch = self.rejected.__getitems__(rows)
        own = {key: value for key, value in batch.items() if key not in ("index", "view")}
        return {f"{REJECTED}{key}": value for key, value in own.items()}

    def fix_width(self, width: int | None = None) -> None:
        super().fix_width(width)
        self.rejected.fix_width(width)

    def content(self) -> tuple[Any, ...]:
        return (*super().content(), self.rejected.content())

    def _take(self, rows: Tensor) -> None:
        super()._take(rows)
        self.rejected = self.rejected.subset(rows)


def fit_pairs(
    arrays: TokenArrays, texts: Integers, length: int, truncation: Truncation
) -> tuple[Fit, Fit]:
    """Return the parts of preferred and rejected texts that rows of ``length`` tokens hold.

    Args:
        arrays: tokens of all texts; each preferred text is followed by the rejected one.
        texts: indices of the preferred texts.
        length: length of a row in tokens.
        truncation: handling of longer texts. A pair without one of its texts is left out.

    Raises:
        ValueError: for long texts with ``error``, and if no pair is left.
    """
    preferred = fit_texts(arrays, texts, length, truncation)
    rejected = fit_texts(arrays, texts + 1, length, truncation)
    left = np.intersect1d(preferred.text, rejected.text - 1)
    if not len(left):
        raise ValueError(
            f"length: no pair has a learned token of both texts in rows of {length} tokens. "
            "Increase data.length"
        )
    notes = tuple(f"of the rejected ones, {note}" for note in rejected.notes)
    return (
        _selected(preferred, np.isin(preferred.text, left))._replace(notes=preferred.notes),
        _selected(rejected, np.isin(rejected.text - 1, left))._replace(notes=notes),
    )


def _selected(fit: Fit, is_left: Any) -> Fit:
    return Fit(fit.start[is_left], fit.stop[is_left], fit.text[is_left], ())
