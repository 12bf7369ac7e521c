"""Share of preference pairs whose preferred text is the more likely one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, side_effect_free
from instil.engine.cpu_offload import device_of
from instil.items import to_device
from instil.items.prefixed_rows import REJECTED, prefixed_rows
from instil.tasks.bases.token_losses import token_losses

BATCH_ROWS = 16
"""Number of pairs that are compared at once."""


def preferred_texts(net: nn.Module, samples: Any) -> dict[str, float]:
    """Compare the likelihoods of preferred and rejected texts.

    Args:
        net: language model.
        samples: token rows.

    Returns:
        ``preferred``: share of the pairs whose preferred text has the larger log-probability per
        token. Empty for samples without pairs.
    """
    if not _has_pairs(samples):
        return {}
    device = device_of(net)
    is_preferred = []
    with side_effect_free(net):
        for start in range(0, len(samples), BATCH_ROWS):
            rows: Sequence[int] = range(start, min(start + BATCH_ROWS, len(samples)))
            batch = to_device(samples.__getitems__(rows), device)
            rejected = prefixed_rows(batch, REJECTED)
            is_preferred.append(_mean_loss(net, batch) < _mean_loss(net, rejected))
    return {"preferred": torch.cat(is_preferred).double().mean().item()}


def check_pairs(samples: Any) -> None:
    """Check that samples have preference pairs, as the headline ``preferred`` needs them.

    Args:
        samples: token rows.

    Raises:
        ValueError: if they have none.
    """
    if not _has_pairs(samples):
        raise ValueError(
            "headline: preferred is the share of preference pairs whose preferred text is the more "
            "likely one. Expected data with pairs. Set data.preferences=true for the source chat, "
            "or data.rationale=preference for text and arithmetic"
        )


def _has_pairs(samples: Any) -> bool:
    return f"{REJECTED}input_ids" in samples.__getitems__([0])


def _mean_loss(net: nn.Module, batch: Batch) -> Tensor:
    """Mean loss per token of each text (N,)."""
    label = batch["label"].masked_fill(~batch["valid"], UNLABELLED)
    losses = token_losses(net(batch), label)[0]
    num_tokens: Tensor = (label != UNLABELLED).sum(1)
    return losses.double().sum(1) / num_tokens
