"""Loss and most likely token of each position."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import UNLABELLED, Outputs, to_float32
from instil.tasks.bases.token_chunks import chunked_logits

LARGEST_EXPONENT = 700
"""Largest loss of a finite perplexity in float64."""


def token_losses(outputs: Outputs, label: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the loss and the most likely token of each position.

    A ``projection`` is evaluated a few positions at a time.

    Args:
        outputs: ``projection`` or ``logits`` (N, T, V).
        label: token ids (N, T); -100 for no label.

    Returns:
        Negative log-probability of the label (N, T), 0 without a label, and the most likely token
        (N, T).

    Raises:
        ValueError: if a logit of a labelled position is not finite.
    """
    if "projection" in outputs:
        chunks: Iterable[Tensor] = chunked_logits(outputs["projection"])
    else:
        chunks = [outputs["logits"].flatten(0, -2)]
    rest = label.reshape(-1)
    losses: list[Tensor] = []
    tokens: list[Tensor] = []
    for chunk in chunks:
        logits = to_float32(chunk)
        target, rest = rest.tensor_split([len(chunk)])
        if not logits[target != UNLABELLED].isfinite().all():
            raise ValueError("the net gives logits that are not finite")
        losses.append(F.cross_entropy(logits, target, reduction="none", ignore_index=UNLABELLED))
        tokens.append(logits.argmax(-1))
    return torch.cat(losses).view(label.shape), torch.cat(tokens).view(label.shape)


def vocabulary_size(outputs: Outputs) -> int:
    """Number of tokens that a language model chooses from."""
    if "projection" in outputs:
        return len(outputs["projection"].weight)
    return int(outputs["logits"].shape[-1])
