"""Rotations that share variance out: Hadamard matrices, and for widths that have none, one made for the variances at hand."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def hadamard(size: int) -> Tensor | None:
    """A Hadamard matrix (entries 1 and -1, orthogonal rows), float64; None where neither Sylvester's nor Paley's construction gives one."""
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
    """An orthogonal matrix (D, D) after which independent coordinates of these ``variances`` (D,) all have their mean as variance.

    The normalized Hadamard matrix where there is one for D, whatever the variances; else plane rotations, each of which brings one coordinate
    to the mean (such a matrix exists for any D by the theorem of Schur and Horn).
    """
    size = len(variances)
    matrix = hadamard(size)
    if matrix is not None:
        return matrix.to(variances.dtype) / math.sqrt(size)
    rotation = torch.eye(size, dtype=variances.dtype)
    covariance, mean = torch.diag(variances), variances.mean()
    left = list(range(size))
    while len(left) > 1:
        diagonal = covariance.diagonal()[left]
        low, high = left[int(diagonal.argmin())], left[int(diagonal.argmax())]
        if low == high:
            break
        plane = _to_the_mean(
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
        left.remove(low)
    return rotation


def _to_the_mean(low: float, high: float, cross: float, mean: float) -> list[list[float]]:
    """The rotation of two coordinates after which the first has variance ``mean``, which lies between theirs."""
    # low c² + 2 cross c s + high s² = mean, in t = s / c: (high - mean) t² + 2 cross t + (low - mean) = 0
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
    """Of size prime + 1, for a prime that is 3 modulo 4."""
    matrix = torch.eye(prime + 1, dtype=torch.float64)
    matrix[0, 1:], matrix[1:, 0] = 1.0, -1.0
    matrix[1:, 1:] += _jacobsthal(prime)
    return matrix


def _paley_symmetric(prime: int) -> Tensor:
    """Of size 2 (prime + 1), for a prime that is 1 modulo 4."""
    core = torch.zeros(prime + 1, prime + 1, dtype=torch.float64)
    core[0, 1:], core[1:, 0] = 1.0, 1.0
    core[1:, 1:] = _jacobsthal(prime)
    zero, one = (
        torch.tensor([[1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64),
        torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64),
    )
    return torch.kron(core, one) + torch.kron(torch.eye(prime + 1, dtype=torch.float64), zero)


def _jacobsthal(prime: int) -> Tensor:
    """[i, j]: 1 where i - j is a square modulo the prime, -1 where it is none, 0 on the diagonal."""
    character = torch.full((prime,), -1.0, dtype=torch.float64)
    character[torch.arange(1, prime).square() % prime] = 1.0
    character[0] = 0.0
    place = torch.arange(prime)
    return character[(place[:, None] - place) % prime]


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))
