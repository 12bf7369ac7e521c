"""Telling each row's own partner from those of the other rows."""

from __future__ import annotations

from torch import Tensor


def contrastive(similarity: Tensor) -> Tensor:
    """Cross-entropy of finding each row's own partner, the diagonal of (N, N), among all columns; mean over the rows, a scalar."""
    return -similarity.log_softmax(1).diagonal().mean()


def symmetric_contrastive(similarity: Tensor) -> Tensor:
    """Mean of the contrastive losses of the rows and of the columns of (N, N)."""
    return (contrastive(similarity) + contrastive(similarity.T)) / 2
