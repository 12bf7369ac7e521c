"""Attention between the tokens of two models, and its queries, keys and values."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import UNLABELLED, to_float32


def cross_attention(
    query: Tensor, key: Tensor, query_counted: Tensor, key_counted: Tensor
) -> Tensor:
    """Attention scores between the tokens of two models.

    Args:
        query: (N, T, D).
        key: (N, T', D).
        query_counted: boolean (N, T), True for positions that count.
        key_counted: boolean (N, T').

    Returns:
        Scores (N, T, T'), the lowest finite number where either position does not count.
    """
    scores: Tensor = query @ key.mT / query.shape[-1] ** 0.5
    counted = query_counted[:, :, None] & key_counted[:, None]
    return scores.masked_fill(~counted, torch.finfo(scores.dtype).min)


def token_pair_embeddings(
    embedding_weight: Tensor, input_ids: Tensor, label: Tensor
) -> tuple[Tensor, Tensor]:
    """Embeddings of each token and of the token that follows it, without a gradient.

    Args:
        embedding_weight: token embeddings of a model (V, E).
        input_ids: token ids (N, T).
        label: ids of the following tokens (N, T); ``-100`` where there is none, for which both
            embeddings are those of token 0.

    Returns:
        Embeddings of the tokens (N, T, E) and of their labels (N, T, E).
    """
    labelled = label != UNLABELLED
    weight = to_float32(embedding_weight).detach()
    current = F.embedding(torch.where(labelled, input_ids, 0), weight)
    following = F.embedding(torch.where(labelled, label, 0), weight)
    return current, following


def divide_by_row_deviation(values: Tensor, counted: Tensor) -> Tensor:
    """Divide by the standard deviation over the counted positions and channels of each row.

    Args:
        values: (N, T, D).
        counted: boolean (N, T), True for positions that count.

    Returns:
        Scaled values (N, T, D).
    """
    weight = counted[..., None].to(values.dtype)
    total = weight.sum((1, 2), keepdim=True).clamp_min(1) * values.shape[-1]
    centre = (values * weight).sum((1, 2), keepdim=True) / total
    variance = ((values - centre).square() * weight).sum((1, 2), keepdim=True) / total
    return values / (variance + torch.finfo(values.dtype).eps).sqrt()
