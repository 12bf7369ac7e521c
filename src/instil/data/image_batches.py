"""Images of rows of conversations as entries of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from instil.core import Batch
from instil.data.chat_images import ImageProcessor
from instil.roles import IMAGE_TOKENS, PADDED


class ImageBatches:
    """Entries of a batch for the images of its rows.

    Models that concatenate the images of all rows get them padded by row: see ``PADDED``. Others,
    such as Idefics3, have one entry per row already.

    Args:
        processor: processor of the images.
    """

    def __init__(self, processor: ImageProcessor):
        self.processor = processor
        self._has_rows: bool | None = None

    def batch(self, rows: Sequence[Sequence[str]], tokens: Tensor) -> Batch:
        """Return the entries of some rows.

        Args:
            rows: files or data URLs of the images of each row.
            tokens: ``input_ids`` (N, T).
        """
        outputs = [self._row(sources) for sources in rows]
        batch: Batch = {IMAGE_TOKENS: (tokens == self.processor.token_id).int()}
        for name in dict.fromkeys(chain.from_iterable(outputs)):
            padded, length = _padded([row.get(name) for row in outputs], name)
            if self._has_rows:
                batch[name] = padded
            else:
                batch |= {f"{PADDED}{name}": padded, f"{PADDED}{name}_length": length}
        return batch

    def _row(self, sources: Sequence[str]) -> dict[str, Tensor]:
        """Inputs of a model for the images of one row."""
        if not sources:
            return {}
        outputs: dict[str, Tensor] = self.processor.inputs(sources)
        if self._has_rows is None:
            # Two images are two entries, or one row with two entries.
            once, twice = (self.processor.inputs([sources[0]] * count) for count in (1, 2))
            self._has_rows = len(twice["pixel_values"]) == len(once["pixel_values"])
        return {name: value[0] for name, value in outputs.items()} if self._has_rows else outputs


def _padded(parts: Sequence[Tensor | None], name: str) -> tuple[Tensor, Tensor]:
    """One tensor (N, L, ...) of parts (L_i, ...), with zeros behind them, and their lengths (N,).

    Raises:
        ValueError: if the parts have different shapes behind the first dimension.
    """
    first = next(part for part in parts if part is not None)
    lengths = [0 if part is None else len(part) for part in parts]
    padded = first.new_zeros((len(parts), max(lengths), *first.shape[1:]))
    for row, part in zip(padded, parts, strict=True):
        if part is None:
            continue
        if part.shape[1:] != first.shape[1:]:
            raise ValueError(
                f"data.files: the processor gives images of different shapes ({name}: "
                f"{tuple(first.shape[1:])} and {tuple(part.shape[1:])}). Expected one shape. Set "
                "data.batch_size to 1, or another size in the processor's configuration"
            )
        row[: len(part)] = part
    return padded, torch.tensor(lengths)
