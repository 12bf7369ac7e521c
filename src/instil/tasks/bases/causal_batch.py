"""Batches of text in the form of transformers: tokens as labels, and positions of packed texts."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from instil.core import UNLABELLED, Batch
from instil.tasks.bases.packed_rows import SEGMENT


def causal_batch(batch: Batch) -> Batch:
    """Return a batch with the token that follows each position, and with separate texts.

    Args:
        batch: ``input_ids`` (N, T), perhaps with ``labels``, the tokens themselves, and with
            ``position_ids``. Positions that start again separate the texts of a row, as in the
            collator ``DataCollatorWithFlattening``.

    Returns:
        The batch with ``label`` and ``valid`` in place of ``labels``, and with ``segment`` and
        ``attention_mask`` where positions start again.

    Raises:
        ValueError: for labels of another shape.
    """
    batch = _with_segments(batch)
    if "labels" not in batch or "label" in batch:
        return batch
    batch = dict(batch)
    labels: Tensor = batch.pop("labels")
    if labels.dim() != 2:
        raise ValueError(
            f"labels: Expected a token for each position, (batch, length), got "
            f"{tuple(labels.shape)}. For a class per text use the task text_classification"
        )
    label = F.pad(labels[:, 1:], (0, 1), value=UNLABELLED)
    if SEGMENT in batch:
        # The first token of a text has no earlier one to be predicted from.
        is_last = batch[SEGMENT][:, 1:] != batch[SEGMENT][:, :-1]
        label[:, :-1] = label[:, :-1].masked_fill(is_last, UNLABELLED)
    return batch | {"label": label, "valid": label != UNLABELLED}


def _with_segments(batch: Batch) -> Batch:
    """Batch with the number of the text at each position, if its rows hold several."""
    position = batch.get("position_ids")
    if SEGMENT in batch or not isinstance(position, Tensor):
        return batch
    ids: Tensor = batch["input_ids"]
    if position.shape != ids.shape or not bool((position[:, 1:] == 0).any()):
        return batch
    # Padding on the left may have other positions than 0.
    segment = (position == 0).cumsum(1) + (position[:, :1] != 0)
    if "attention_mask" in batch:
        segment = segment * (batch["attention_mask"] > 0)
    return batch | {SEGMENT: segment, "attention_mask": (segment > 0).long()}
