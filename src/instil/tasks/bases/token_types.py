"""Segments of two texts in one row, for models that tell them apart."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from instil.core import Batch
from instil.students.adapted_model import without_wrapper

PARAMETER = "token_type_ids"
NUM_TYPES = 2
"""Number of types of models with the type 0 for the first text and 1 for the second one."""


def token_types(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Return the segments of the tokens as an argument of a model, such as BERT.

    The second text begins after the first end token. A row ends with that token, so that one text
    has the type 0 everywhere.

    Args:
        model: the model.
        batch: ``input_ids`` and optionally ``attention_mask`` (N, L), without padding between the
            tokens; or ``token_type_ids`` (N, L), which are returned.

    Returns:
        ``token_type_ids`` (N, L), or nothing for a model without two segments.

    Example:
        >>> token_types(nn.Linear(1, 1), {})
        {}
    """
    if not _has_segments(model):
        return {}
    if PARAMETER in batch:
        return {PARAMETER: batch[PARAMETER]}
    ids = batch["input_ids"]
    mask = batch["attention_mask"].long() if "attention_mask" in batch else ids.new_ones(ids.shape)
    last = (mask.sum(1, keepdim=True) - 1).clamp_min(0)
    is_end = (ids == ids.gather(1, last)).long() * mask
    num_ends_before = is_end.cumsum(1) - is_end
    return {PARAMETER: (num_ends_before > 0).long() * mask}


def _has_segments(model: Any) -> bool:
    base = without_wrapper(model)
    num_types = getattr(getattr(base, "config", None), "type_vocab_size", 0)
    return num_types == NUM_TYPES and PARAMETER in inspect.signature(base.forward).parameters
