"""Rotations that equalize variances: Hadamard matrices, and plane rotations for other sizes."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def hadamard(size: int) -> Tensor | None:
    """Hadamard matrix (size, size): entries 1 and -1, orthogonal rows, float64.

    None where neither Sylvester's nor Paley's construction gives one.
    """
    doublings = (size & -size).bit_length() - 1
    if size == 1 << doublings:
        return _sylvester(doublings)
    for power in range(doublings - 1, -1, -1):
        rest = size >> power
        if rest % 4 == 0 and (rest - 1) % 4 == 3 and _is_prime(rest - 1):
            return torch.kron(_sylvester(power), _paley(rest - 1))
        if rest % 4 == 0 and (rest // 2 - 1) % 4 == 1 and _is_prime(rest // 2 - 1):
            return torch.kron(_sylvester(power), _paley_symmetric(rest // 2 - 1))
    return None


def equalizing_rotation(variances: Tensor) -> Tensor:
    """Rotation that gives independent coordinates their mean variance.

    The normalized Hadamard matrix where one exists for D. Otherwise a sequence of plane
    rotations; each brings one coordinate to the mean. Such a matrix exists for any D by the theorem
    of Schur and Horn.

    Args:
        variances: (D,).

    Returns:
        Orthogonal matrix (D, D).
    """
    size = len(variances)
    matrix = hadamard(size)
    if matrix is not None:
        return matrix.to(variances.dtype) / math.sqrt(size)
    rotation = torch.eye(size, dtype=variances.dtype)
    covariance = torch.diag(variances)
    mean = variances.mean()
    remaining = list(range(size))
    while len(remaining) > 1:
        diagonal = covariance.diagonal()[remaining]
        low, high = remaining[int(diagonal.argmin())], remaining[int(diagonal.argmax())]
        if low == high:
            break
        plane = _plane_rotation(
            float(covariance[low, low]),
            float(covariance[high, high]),
            float(covariance[low, high]),
            float(mean),
        )
        turn = torch.tensor(plane, dtype=variances.dtype)
        pair = [low, high]
        rotation[pair] = turn @ rotation[pair]
        covariance[pair] = turn @ covariance[pair]
        covariance[:, pair] = covariance[:, pair] @ turn.T
        remaining.remove(low)
    return rotation


def _plane_rotation(low: float, high: float, cross: float, mean: float) -> list[list[float]]:
    """Rotation of two coordinates after which the first has variance ``mean``.

    ``mean`` lies between the variances ``low`` and ``high``; ``cross`` is the covariance.
    """
    # low c² + 2 cross c s + high s² = mean gives, for t = s / c,
    # (high - mean) t² + 2 cross t + (low - mean) = 0.
    a, b, c = high - mean, cross, low - mean
    if a <= 0:
        return [[1.0, 0.0], [0.0, 1.0]]
    tangent = (-b + math.sqrt(max(0.0, b * b - a * c))) / a
    cosine = 1 / math.hypot(1.0, tangent)
    return [[cosine, cosine * tangent], [-cosine * tangent, cosine]]


def _sylvester(doublings: int) -> Tensor:
    matrix = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(doublings):
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), matrix)
    return matrix


def _paley(prime: int) -> Tensor:
    """Paley matrix of size prime + 1, for a prime that is 3 modulo 4."""
    matrix = torch.eye(prime + 1, dtype=torch.float64)
    matrix[0, 1:] = 1.0
    matrix[1:, 0] = -1.0
    matrix[1:, 1:] += _jacobsthal(prime)
    return matrix


def _paley_symmetric(prime: int) -> Tensor:
    """Paley matrix of size 2 (prime + 1), for a prime that is 1 modulo 4."""
    core = torch.zeros(prime + 1, prime + 1, dtype=torch.float64)
    core[0, 1:] = 1.0
    core[1:, 0] = 1.0
    core[1:, 1:] = _jacobsthal(prime)
    zero = torch.tensor([[1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
    one = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    return torch.kron(core, one) + torch.kron(torch.eye(prime + 1, dtype=torch.float64), zero)


def _jacobsthal(prime: int) -> Tensor:
    """Matrix of the quadratic character: entry [i, j] is 1 if i - j is a square modulo the prime.

    It is -1 for the other numbers, and 0 on the diagonal.
    """
    character = torch.full((prime,), -1.0, dtype=torch.float64)
    character[torch.arange(1, prime).square() % prime] = 1.0
    character[0] = 0.0
    index = torch.arange(prime)
    return character[(index[:, None] - index) % prime]


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % divisor for divisor in range(2, math.isqrt(n) + 1))
