"""Logits of a projection, a few positions at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from instil.roles import Projection

CHUNK = 2**24
"""Number of logits in memory at a time where each token needs one number only."""


def predicted(projection: Projection) -> Tensor:
    """Return the most likely token (...) of each position, without gradients, in chunks."""
    with torch.no_grad():
        tokens = torch.cat([part.argmax(-1) for part in chunked_logits(projection)])
    return tokens.view(projection.hidden.shape[:-1])


def chunked_logits(projection: Projection) -> Iterator[Tensor]:
    """Iterate over the logits (n, V) of consecutive positions, about ``CHUNK`` at a time."""
    hidden = projection.hidden.reshape(-1, projection.hidden.shape[-1])
    rows = max(1, CHUNK // len(projection.weight))
    for start in range(0, len(hidden), rows):
        yield replace(projection, hidden=hidden[start : start + rows]).logits()
