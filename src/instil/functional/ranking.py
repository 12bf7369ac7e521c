"""Scores of the candidates of a query, and measures of their order."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import UNLABELLED, to_float32

PADDED_SCORE = -1e4
"""Score of a missing candidate: its softmax probability is 0, and float16 can hold it."""


def is_candidate(scores: Tensor) -> Tensor:
    """Return a mask (..., D) of the scores that belong to a candidate.

    Args:
        scores: (..., D), ``PADDED_SCORE`` or -inf where there is no candidate.
    """
    return scores > PADDED_SCORE / 2


def ranked_grades(scores: Tensor, grades: Tensor) -> Tensor:
    """Return the grades of each query in the order of its scores, the highest score first.

    Of two candidates with equal scores, the one with the lower grade is first: a network without
    preferences gets no credit.

    Args:
        scores: (N, D).
        grades: (N, D), >= 0; -100 where there is no candidate.

    Returns:
        (N, D); missing candidates are last, with -100.
    """
    # Two stable sorts: the first one decides between equal scores.
    order = grades.argsort(dim=1, stable=True)
    scores = to_float32(scores).masked_fill(grades == UNLABELLED, -torch.inf)
    by_score = scores.gather(1, order).argsort(dim=1, descending=True, stable=True)
    order = order.gather(1, by_score)
    # A score of -inf of a real candidate must not be behind a missing one.
    ranked = grades.gather(1, order)
    is_missing = (ranked == UNLABELLED).long().argsort(dim=1, stable=True)
    return ranked.gather(1, is_missing)


def ndcg(ranked: Tensor, k: int) -> Tensor:
    """Return the normalised discounted cumulative gain of the first k candidates.

    The gain of a candidate is its grade, as in scikit-learn and torchmetrics (Järvelin and
    Kekäläinen 2002).

    Args:
        ranked: (N, D), grades in the order of the scores, see ``ranked_grades``.
        k: number of candidates.

    Returns:
        (N,), in [0, 1]; 0 for a query without a relevant candidate.

    Example:
        >>> ndcg(torch.tensor([[0.0, 1.0, 0.0]]), k=10)
        tensor([0.6309], dtype=torch.float64)
    """
    gains = ranked.double().clamp_min(0)
    discount = torch.arange(gains.shape[1], device=gains.device).double().add(2).log2()
    ideal = gains.sort(dim=1, descending=True).values
    best = (ideal / discount)[:, :k].sum(1)
    total = (gains / discount)[:, :k].sum(1)
    return torch.where(best > 0, total / best.clamp_min(torch.finfo(best.dtype).tiny), 0.0)


def recall_at_k(ranked: Tensor, k: int) -> Tensor:
    """Return the share of the relevant candidates that are among the first k.

    Args:
        ranked: (N, D), grades in the order of the scores, see ``ranked_grades``.
        k: number of candidates.

    Returns:
        (N,), in [0, 1]; 0 for a query without a relevant candidate.

    Example:
        >>> recall_at_k(torch.tensor([[0.0, 1.0, 1.0]]), k=2)
        tensor([0.5000], dtype=torch.float64)
    """
    is_relevant = (ranked > 0).double()
    return is_relevant[:, :k].sum(1) / is_relevant.sum(1).clamp_min(1)


def reciprocal_rank(ranked: Tensor) -> Tensor:
    """Return the reciprocal rank of the first relevant candidate.

    Args:
        ranked: (N, D), grades in the order of the scores, see ``ranked_grades``.

    Returns:
        (N,), in (0, 1]; 0 for a query without a relevant candidate.

    Example:
        >>> reciprocal_rank(torch.tensor([[0.0, 1.0, 1.0]]))
        tensor([0.5000], dtype=torch.float64)
    """
    is_relevant = ranked > 0
    rank = 1 + is_relevant.long().argmax(1)
    return torch.where(is_relevant.any(1), 1 / rank.double(), 0.0)


def roc_auc(scores: Tensor, is_positive: Tensor) -> float:
    """Return the area under the ROC curve: the share of pairs in the right order.

    Of a positive and a negative item with equal scores, half a pair counts.

    Args:
        scores: (N,).
        is_positive: (N,), bool.

    Returns:
        Value in [0, 1]; 0.5 without positive or without negative items.

    Example:
        >>> roc_auc(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([True, False, True]))
        0.5
    """
    positive = scores[is_positive].double()
    negative = scores[~is_positive].double().sort().values
    if not len(positive) or not len(negative):
        return 0.5
    below = torch.searchsorted(negative, positive)
    not_above = torch.searchsorted(negative, positive, right=True)
    return (below + not_above).double().mean().item() / (2 * len(negative))
