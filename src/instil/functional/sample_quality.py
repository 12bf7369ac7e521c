"""Distances between generated and real samples in a space of features."""

from __future__ import annotations

import torch
from torch import Tensor


def frechet_distance(features: Tensor, real_features: Tensor) -> Tensor:
    """Squared Fréchet distance of two normal distributions (Heusel et al. 2017, Eq. 6).

    Means and unbiased covariances are those of the samples; the distance of few samples is too
    large.

    Args:
        features: features of generated samples (N, D).
        real_features: features of real samples (M, D).

    Returns:
        Scalar, float64, at least 0.

    Raises:
        ValueError: for fewer than two samples, or features of another width.

    Example:
        >>> real = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> round(float(frechet_distance(real + 2, real)), 4)
        8.0
    """
    _check(features, real_features)
    one, two = features.double(), real_features.double()
    difference = (one.mean(0) - two.mean(0)).square().sum()
    first, second = (value.T.cov().reshape(one.shape[1], -1) for value in (one, two))
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    # The product is symmetric, so its eigenvalues are real; small negative ones are rounding.
    product = torch.linalg.eigvalsh(root @ second @ root).clamp_min(0).sqrt().sum()
    distance: Tensor = difference + first.trace() + second.trace() - 2 * product
    return distance.clamp_min(0)


def neighbour_radii(features: Tensor, neighbours: int) -> Tensor:
    """Distance of each sample (N, D) to its ``neighbours``-th nearest other sample: (N,)."""
    # The nearest entry of a row is the sample itself.
    return torch.cdist(features, features).kthvalue(neighbours + 1, dim=1).values


def precision_recall_coverage(
    features: Tensor, real_features: Tensor, neighbours: int = 5
) -> dict[str, float]:
    """Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

    The ball of a sample reaches to its ``neighbours``-th nearest sample of the same set.

    Args:
        features: features of generated samples (N, D).
        real_features: features of real samples (M, D).
        neighbours: number of neighbours; reduced for fewer samples.

    Returns:
        - ``precision``: share of the generated samples in the ball of a real one;
        - ``recall``: share of the real samples in the ball of a generated one;
        - ``density``: mean number of real balls around a generated one over ``neighbours``;
        - ``coverage``: share of the real samples with a generated one in their ball.

    Raises:
        ValueError: for fewer than two samples, or features of another width.
    """
    _check(features, real_features)
    one, two = features.double(), real_features.double()
    neighbours = min(neighbours, len(one) - 1, len(two) - 1)
    distance = torch.cdist(two, one)
    in_real_ball = distance < neighbour_radii(two, neighbours)[:, None]
    in_ball = distance < neighbour_radii(one, neighbours)[None]
    return {
        "precision": in_real_ball.any(0).double().mean().item(),
        "recall": in_ball.any(1).double().mean().item(),
        "density": in_real_ball.double().sum(0).mean().item() / neighbours,
        "coverage": in_real_ball.any(1).double().mean().item(),
    }


def _check(features: Tensor, real_features: Tensor) -> None:
    shapes = tuple(features.shape), tuple(real_features.shape)
    fits = features.ndim == real_features.ndim == 2 and shapes[0][1] == shapes[1][1]
    if not fits or min(shapes[0][0], shapes[1][0]) < 2:
        raise ValueError(
            "features, real_features: wrong shapes. Expected (N, D) and (M, D) with at least two "
            f"samples, got {shapes[0]} and {shapes[1]}"
        )
