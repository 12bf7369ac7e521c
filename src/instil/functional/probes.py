"""Probes of frozen embeddings: nearest neighbours and ridge regression, each leaving one out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from instil.functional.directions import l2_normalize, pairwise_dot

NEIGHBOURS = 20
"""Number of neighbours of the k-NN probe (Caron et al. 2021)."""
TEMPERATURE = 0.07
"""Divisor of the cosines in the weight of a neighbour (Wu et al. 2018)."""
PENALTIES = tuple(10.0**power for power in range(-4, 4))
"""Ridge penalties that the probe compares, relative to the mean variance of the embedding."""


def knn_votes(
    embedding: Tensor,
    label: Tensor,
    num_classes: int,
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> Tensor:
    """Class votes of the nearest neighbours of each sample among the others (Wu et al. 2018).

    A neighbour has the weight ``exp(cosine / temperature)``.

    Args:
        embedding: (N, D).
        label: class indices (N,).
        num_classes: number of classes C.
        neighbours: number of neighbours; at most all other samples vote.
        temperature: divisor of the cosines, > 0.

    Returns:
        Sum of the weights of each class (N, C), up to a factor for each sample.

    Raises:
        ValueError: for fewer than two samples.

    Example:
        >>> import torch
        >>> points = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> knn_votes(points, torch.tensor([0, 0, 1, 1]), 2, neighbours=1).argmax(1)
        tensor([0, 0, 1, 1])
    """
    _require_samples(embedding)
    units = l2_normalize(embedding.detach())
    cosines = pairwise_dot(units, units).fill_diagonal_(-math.inf)
    closest, rows = cosines.topk(min(neighbours, len(embedding) - 1), dim=1)
    # Relative to the closest one, so that no weight overflows.
    weight = ((closest - closest[:, :1]) / temperature).exp()
    votes = weight.new_zeros(len(embedding), num_classes)
    return votes.scatter_add_(1, label[rows], weight)


def ridge_scores(
    embedding: Tensor, label: Tensor, num_classes: int, penalties: Sequence[float] = PENALTIES
) -> Tensor:
    """Scores of a linear probe for each sample, fitted to the other samples in closed form.

    Ridge regression on one-hot classes with an intercept. The scores of a sample are those of the
    fit without it: ``(s - h y) / (1 - h)`` for its score s, target y and leverage h in the fit to
    all samples. The penalty with the smallest squared error of these scores is used.

    Args:
        embedding: (N, D).
        label: class indices (N,).
        num_classes: number of classes C.
        penalties: candidates, relative to the mean variance of the embedding's dimensions.

    Returns:
        (N, C), float64.

    Raises:
        ValueError: for fewer than two samples.

    Example:
        >>> import torch
        >>> points = torch.tensor([[0.0], [1.0], [8.0], [9.0]])
        >>> ridge_scores(points, torch.tensor([0, 0, 1, 1]), 2).argmax(1)
        tensor([0, 0, 1, 1])
    """
    _require_samples(embedding)
    num_samples = len(embedding)
    values = embedding.detach().double()
    centred = values - values.mean(0)
    target = F.one_hot(label, num_classes).double()
    mean = target.mean(0)
    left, singular, _ = torch.linalg.svd(centred, full_matrices=False)
    projected = left.mT @ target
    variance = singular.square()
    # Equal embeddings have no variance: all scores are the frequencies of the classes.
    scale = (variance.sum() / centred.shape[1]).clamp_min(torch.finfo(torch.float64).tiny)
    best = target.new_zeros(num_samples, num_classes)
    smallest = math.inf
    for penalty in penalties:
        shrinkage = variance / (variance + penalty * scale)
        fitted = mean + left @ (shrinkage[:, None] * projected)
        # The intercept adds the same leverage to each sample.
        leverage = 1 / num_samples + left.square() @ shrinkage
        remainder = (1 - leverage).clamp_min(torch.finfo(torch.float64).eps)[:, None]
        scores = (fitted - leverage[:, None] * target) / remainder
        error = float((scores - target).square().mean())
        if error < smallest:
            best, smallest = scores, error
    return best


def _require_samples(embedding: Tensor) -> None:
    if len(embedding) < 2:
        raise ValueError(
            "embedding: a probe needs other samples. Expected two samples or more, got "
            f"{len(embedding)}"
        )
