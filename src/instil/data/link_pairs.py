"""Distinct undirected edges of a graph, and their division into splits."""

from __future__ import annotations

import torch
from torch import Tensor

SPLITS = ("train", "validation", "test")
"""Names of the values 0, 1 and 2 of a split."""


def distinct_pairs(edges: Tensor, split: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Return each undirected edge once.

    Args:
        edges: (2, E), each edge once or in both directions.
        split: (E,), 0, 1 or 2; None for no split.

    Returns:
        Pairs (2, P), the smaller index first, and their split (P,).

    Raises:
        ValueError: for loops, a split that does not fit, and an edge in two splits.
    """
    is_loop = edges[0] == edges[1]
    if is_loop.any():
        edge = int(is_loop.nonzero()[0])
        raise ValueError(
            f"edges: edge {edge} joins node {int(edges[0, edge])} to itself. Expected two "
            "different nodes: a loop cannot be predicted. Leave loops out"
        )
    pairs, inverse = torch.unique(edges.sort(0).values, dim=1, return_inverse=True)
    if split is None:
        return pairs, None
    if split.shape != inverse.shape or not ((split >= 0) & (split < len(SPLITS))).all():
        raise ValueError(
            f"split: values of shape {tuple(split.shape)} that do not fit. Expected 0, 1 or 2 for "
            f"each of {edges.shape[1]} edges"
        )
    split = split.long()
    smallest = torch.full((pairs.shape[1],), len(SPLITS)).scatter_reduce(0, inverse, split, "amin")
    largest = torch.full_like(smallest, -1).scatter_reduce(0, inverse, split, "amax")
    if (smallest != largest).any():
        first, second = pairs[:, int((smallest != largest).nonzero()[0])].tolist()
        raise ValueError(
            f"split: the edge of nodes {first} and {second} is in two splits. Expected one split "
            "for both directions"
        )
    return pairs, smallest


def random_split(count: int, validation: float, test: float, generator: torch.Generator) -> Tensor:
    """Return a random split (count,) of edges.

    Args:
        count: number of edges.
        validation: share of the edges for validation.
        test: share of the edges for the test.
        generator: source of the draws.

    Raises:
        ValueError: for a share outside (0, 1).
    """
    for name, share in (("validation", validation), ("test", test)):
        if not 0 < share < 1:
            raise ValueError(f"{name}: {share} is out of range. Expected a share between 0 and 1")
    order = torch.randperm(count, generator=generator)
    num_test = round(test * count)
    split = torch.zeros(count, dtype=torch.int64)
    split[order[: num_test + round(validation * count)]] = 1
    split[order[:num_test]] = 2
    return split


def pairs_by_split(pairs: Tensor, split: Tensor) -> list[Tensor]:
    """Return the pairs (2, P) of each split.

    Args:
        pairs: (2, P).
        split: (P,), 0, 1 or 2.

    Raises:
        ValueError: for a split without pairs.
    """
    groups = [pairs[:, split == value] for value in range(len(SPLITS))]
    for name, group in zip(SPLITS, groups, strict=True):
        if not group.shape[1]:
            raise ValueError(
                f"edges: the {name} split has none of {pairs.shape[1]} edges. Expected at least "
                "one. Use more edges or another share"
            )
    return groups
