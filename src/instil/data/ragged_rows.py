"""Data set of token rows of different lengths, read from memory-mapped files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from instil.core import UNLABELLED, Batch
from instil.data.chat_encoding import LEARNED, MAX_BYTES
from instil.data.chat_images import ImageProcessor
from instil.data.image_batches import ImageBatches
from instil.data.ragged_fitting import Fit, best_fit
from instil.data.samples import Rows
from instil.data.token_arrays import TokenArrays
from instil.data.token_vocabulary import TokenSamples
from instil.data.tokenizers import Tokenizer

MULTIPLE = 8
"""Batches are padded to a multiple of this length, which matrix units of GPUs prefer."""


class RaggedRows(TokenSamples):
    """Rows of ``input_ids`` with the next token as ``label``, -100 for no target.

    A batch is padded to its longest row (N, T). Its keys are those of ``TokenRows``:
    ``input_ids``, ``attention_mask``, ``valid``, ``bytes`` and ``label``. Rows with several texts
    have ``segment`` (N, T), the number of the text from 1 on, 0 for padding, and ``position_ids``
    (N, T), which start again with each text. Keys of each row (N,), such as ``domain``, are passed
    on.

    Args:
        arrays: tokens of all texts.
        fit: part of a text for each row.
        row_keys: one integer per row of ``fit`` by batch key.
        length: largest length T of a row.
        tokenizer: tokenizer of the rows.
        tokens: token ids of the tokenizer by the ids of a reduced vocabulary; empty for the whole
            vocabulary.
        images: processor of the images; None for texts only.

    Attributes:
        width: width T of every batch; None: that of its longest row.
        is_packed: whether rows have several texts.
        lengths: number of tokens of each row (N,).
    """

    def __init__(
        self,
        arrays: TokenArrays,
        fit: Fit,
        row_keys: Mapping[str, Tensor],
        length: int,
        tokenizer: Tokenizer,
        tokens: Sequence[int] = (),
        images: ImageProcessor | None = None,
    ):
        self.set_vocabulary(len(tokens) or tokenizer.size, length, tokenizer, tokens)
        self.arrays = arrays
        self.fit = fit
        self.row_keys = dict(row_keys)
        self.images = None if images is None else ImageBatches(images)
        self.groups: list[list[int]] = [[row] for row in range(len(fit.text))]
        self.width: int | None = None
        self.is_packed = False
        first = arrays.texts["first_learned"][fit.text]
        begin = fit.start - arrays.start[fit.text]
        self.has_prompts = bool((first - begin > 1).any())
        self._new_ids = np.zeros(0, np.int64)
        if tokens:
            self._new_ids = np.zeros(tokenizer.size, np.int64)
            self._new_ids[list(tokens)] = np.arange(len(tokens))
        super().__init__(torch.zeros(len(fit.text), dtype=torch.int64), ("token",))
        self.lengths = self._row_lengths()

    def packed(self) -> Self:
        """Return rows that are filled with whole texts; those of a row have equal keys."""
        keys = [self.row_keys[name].tolist() for name in sorted(self.row_keys)]
        by_key: dict[tuple[int, ...], list[int]] = {}
        for row in range(len(self)):
            by_key.setdefault(tuple(key[row] for key in keys), []).append(row)
        groups: list[list[int]] = []
        for rows in by_key.values():
            lengths = self.lengths[rows].tolist()
            groups += [[rows[item] for item in group] for group in best_fit(lengths, self.length)]
        first = torch.tensor([group[0] for group in groups])
        packed = self.subset(first)
        packed.groups = [self._members(group) for group in groups]
        packed.is_packed = True
        packed.index = torch.arange(len(groups))
        packed.lengths = packed._row_lengths()
        return packed

    def inputs(self, rows: Tensor) -> Batch:
        batch = self._batch(rows)
        del batch["target"]
        return batch

    def __getitems__(self, rows: Rows) -> Batch:
        """Return the inputs, ``label``, ``index`` and ``view`` (0 until the loader sets it)."""
        rows = torch.as_tensor(rows, dtype=torch.int64)
        batch = self._batch(rows)
        has_label = (self.label[rows] != UNLABELLED)[:, None]
        label = batch.pop("target").masked_fill(~(batch["valid"] & has_label), UNLABELLED)
        return batch | {
            "label": label,
            "index": self.index[rows],
            "view": self._view[: len(rows)],
        }

    def _batch(self, rows: Tensor) -> Batch:
        """Inputs and ``target``, the next token at each position."""
        width = _rounded(self.lengths[rows], self.length) if self.width is None else self.width
        shape = (len(rows), width)
        arrays = {name: np.zeros(shape, np.int64) for name in ("info", "segment", "position")}
        arrays |= {name: np.full(shape, self.end) for name in ("input", "target")}
        for index, row in enumerate(rows.tolist()):
            column = 0
            for number_of_text, member in enumerate(self.groups[row], 1):
                window = slice(int(self.fit.start[member]), int(self.fit.stop[member]))
                ids = self._ids(self.arrays.tokens[window])
                end = column + len(ids) - 1
                arrays["input"][index, column:end] = ids[:-1]
                arrays["target"][index, column:end] = ids[1:]
                arrays["info"][index, column:end] = self.arrays.info[window][1:]
                arrays["segment"][index, column:end] = number_of_text
                arrays["position"][index, column:end] = np.arange(end - column)
                column = end
            # Padding is a text of its own.
            arrays["position"][index, column:] = np.arange(shape[1] - column)
        tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
        packing = {"segment": tensors["segment"], "position_ids": tensors["position"]}
        return {
            "input_ids": tensors["input"],
            "attention_mask": (tensors["segment"] > 0).long(),
            "valid": (tensors["info"] & LEARNED) > 0,
            "bytes": tensors["info"] & MAX_BYTES,
            "target": tensors["target"],
            **(packing if self.is_packed else {}),
            **{key: value[rows] for key, value in self.row_keys.items()},
            **self._images_of(rows, tensors["input"]),
        }

    def _images_of(self, rows: Tensor, tokens: Tensor) -> Batch:
        """Entries of the images of some rows with one text each."""
        if self.images is None or not self.arrays.images:
            return {}
        texts = [int(self.fit.text[self.groups[row][0]]) for row in rows.tolist()]
        return self.images.batch([self.arrays.images_of(text) for text in texts], tokens)

    def has_image(self) -> list[bool]:
        """Return for each row whether it has an image."""
        return [int(self.fit.text[group[0]]) in self.arrays.images for group in self.groups]

    def _members(self, rows: Sequence[int]) -> list[int]:
        """Texts of several rows."""
        return list(chain.from_iterable(self.groups[row] for row in rows))

    def _ids(self, tokens: NDArray[Any]) -> NDArray[Any]:
        return self._new_ids[tokens] if self.tokens else tokens

    def fix_width(self, width: int | None = None) -> None:
        """Give all batches one width, as recorded outputs and generated texts need it.

        Args:
            width: the width; None: that of the longest row.
        """
        self.width = _rounded(self.lengths, self.length) if width is None else width

    def content(self) -> tuple[Any, ...]:
        """Return all that the samples depend on, in a small form."""
        digest = hashlib.sha256()
        for values in (self.fit.start, self.fit.stop, self._new_ids, self.lengths.numpy()):
            digest.update(np.ascontiguousarray(values).tobytes())
        keys = {key: value.tolist() for key, value in self.row_keys.items()}
        digest.update(repr((self.groups, keys)).encode())
        if self.arrays.images:
            digest.update(repr(self.arrays.image_digests()).encode())
        return self.arrays.folder.name, self.length, self.is_packed, digest.hexdigest()

    def _row_lengths(self) -> Tensor:
        sizes = (self.fit.stop - self.fit.start - 1).tolist()
        return torch.tensor([sum(sizes[member] for member in group) for group in self.groups])

    def _take(self, rows: Tensor) -> None:
        self.groups = [self.groups[row] for row in rows.tolist()]
        self.row_keys = {key: value[rows] for key, value in self.row_keys.items()}
        self.lengths = self.lengths[rows]

    def _checked(self, label: Tensor) -> Tensor:
        if label.ndim != 1:
            raise ValueError(
                f"labels of texts are their own tokens. Expected one entry per row, got "
                f"{tuple(label.shape)}"
            )
        return label.to(torch.int64)


def _rounded(lengths: Tensor, limit: int) -> int:
    """Width of a batch: its longest row, rounded up."""
    longest = int(lengths.max()) if len(lengths) else MULTIPLE
    return min(-(-longest // MULTIPLE) * MULTIPLE, limit)
