"""What a net may say in the place of logits: a role each, so that an objective can name what it accepts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SIGNALS = ("logits", "projection", "top", "sampled", "text")
"""Roles that say how likely classes or tokens are, all of them to one text: ``text`` is a tuple of strings, one a sample."""


@dataclass(frozen=True)
class Projection:
    """Logits that nobody has multiplied out: softcap(scale (hidden weight' + (hidden A') B' + bias)), softcap(x) = c tanh(x / c).

    ``hidden`` (..., H), ``weight`` (V, H) a view of the head's parameter, ``bias`` (V,), ``low_rank`` (A (R, H), B (V, R)): an adapter on the head.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None = None
    scale: float | Tensor | None = None
    softcap: float | None = None
    low_rank: tuple[Tensor, Tensor] | None = None

    def logits(self) -> Tensor:
        """(..., V), multiplied out."""
        logits = F.linear(self.hidden, self.weight, self.bias)
        if self.low_rank is not None:
            down, up = self.low_rank
            logits = logits + F.linear(F.linear(self.hidden, down), up)
        logits = logits if self.scale is None else logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


@dataclass(frozen=True)
class Top:
    """Some classes of each item, and how likely all others are together, from a softmax over all of them.

    ``values`` (..., K) are log-probabilities, ``indices`` (..., K) say of which class, ``log_tail`` (...) is the logarithm of what is left.
    """

    values: Tensor
    indices: Tensor
    log_tail: Tensor


@dataclass(frozen=True)
class Sampled:
    """Classes drawn for each item: ``ids`` (..., n) with the teacher's log-probability ``log_p`` (..., n).

    ``log_q`` (..., n): the log-probability by which each was drawn, where it was not drawn from the teacher itself.
    """

    ids: Tensor
    log_p: Tensor
    log_q: Tensor | None = None
