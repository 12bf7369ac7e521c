"""Shared roles, and alternatives to logits that have a role of their own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SHARED_ROLES = frozenset(
    {"class_embedding", "dense_head", "head", "logit_scale", "query_decoder", "token_embedding"}
)
"""Roles that belong to a model, not to samples: they have no rows to select or gather. ``head`` is
the (weight, bias) of the classifier, ``token_embedding`` (V, E) the embedding of each token,
``dense_head`` the ``DenseHead`` of a detector, ``query_decoder`` its ``QueryDecoder``."""

IMAGE_TOKENS = "mm_token_type_ids"
"""Key of a batch (N, T): 1 at tokens in whose place the features of an image are, else 0."""

PADDED = "padded_"
"""Prefix of batch entries (N, L, ...) with L_i parts of row i, and zeros behind them; the lengths
(N,) are under the key with the suffix ``_length``. A model gets the parts of all rows one after
another, under the key without the prefix."""

SIGNALS = ("logits", "projection", "top", "sampled", "text")
"""Roles that describe the probabilities of classes or tokens for one text. ``text`` is a tuple of
strings, one per sample."""


@dataclass(frozen=True)
class Projection:
    """Logits as the factors of a matrix product, softcap(scale (h W' + (h A') B' + b)).

    softcap(x) = c tanh(x / c).

    Attributes:
        hidden: h (..., H).
        weight: W (V, H), a view of the head's parameter.
        bias: b (V,).
        scale: factor of the logits; None: 1.
        softcap: c; None: no cap.
        low_rank: A (R, H) and B (V, R) of an adapter on the head.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None = None
    scale: float | Tensor | None = None
    softcap: float | None = None
    low_rank: tuple[Tensor, Tensor] | None = None

    def logits(self) -> Tensor:
        """Compute the logits (..., V)."""
        logits = _linear(self.hidden, self.weight, self.bias)
        if self.low_rank is not None:
            down, up = self.low_rank
            logits = logits + _linear(_linear(self.hidden, down), up)
        logits = logits if self.scale is None else logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


def _linear(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Linear layer in the type of its input: a norm may give float32 to a head in bfloat16."""
    bias = None if bias is None else bias.to(hidden.dtype)
    return F.linear(hidden, weight.to(hidden.dtype), bias)


@dataclass(frozen=True)
class Top:
    """Log-probabilities of some classes of each item, and of all other classes together.

    Attributes:
        values: log-probabilities (..., K) of a softmax over all classes.
        indices: classes (..., K).
        log_tail: logarithm (...) of the remaining probability.
    """

    values: Tensor
    indices: Tensor
    log_tail: Tensor


@dataclass(frozen=True)
class Sampled:
    """Classes sampled for each item.

    Attributes:
        ids: sampled classes (..., n).
        log_p: their log-probabilities (..., n) under the teacher.
        log_q: their log-probabilities (..., n) under the proposal; None: the teacher is the
            proposal.
    """

    ids: Tensor
    log_p: Tensor
    log_q: Tensor | None = None
