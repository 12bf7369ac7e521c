"""Contrastive cross-entropy of similarity matrices."""

from __future__ import annotations

from torch import Tensor

from instil.functional.feature_maps import require_dims


def contrastive(similarity: Tensor) -> Tensor:
    """Cross-entropy of the diagonal of a similarity matrix (N, N) among all columns.

    Returns:
        Mean over the rows, a scalar.
    """
    return -similarity.log_softmax(1).diagonal().mean()


def symmetric_contrastive(similarity: Tensor) -> Tensor:
    """Mean of the contrastive losses of the rows and of the columns of a matrix (N, N)."""
    require_dims(similarity, 2, "similarity")
    return (contrastive(similarity) + contrastive(similarity.T)) / 2
