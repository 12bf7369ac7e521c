"""Prototypes: clusters of embeddings by cosine."""

from __future__ import annotations

import pytest
import torch

from instil.functional.prototypes import spherical_kmeans


def test_clusters_of_directions_are_found_whatever_their_lengths() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.eye(4)[torch.arange(80) % 4]
    noisy = directions + 0.05 * torch.randn(80, 4, generator=generator)
    vectors = noisy * (1 + 9 * torch.rand(80, 1, generator=generator))
    centres = spherical_kmeans(vectors, 8)
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(8))
    # Every direction has a centre, and every centre has the direction of one cluster.
    assert float(centres.amax(0).min()) > 0.99
    assert float(centres.amax(1).min()) > 0.99
    assert torch.equal(centres, spherical_kmeans(vectors, 8))


def test_fewer_vectors_than_clusters_are_repeated() -> None:
    centres = spherical_kmeans(torch.tensor([[2.0, 0.0], [0.0, 3.0]]), 4)
    assert sorted(centres.tolist()) == [[0, 1], [0, 1], [1, 0], [1, 0]]
    with pytest.raises(ValueError, match="prototypes need embeddings"):
        spherical_kmeans(torch.zeros(0, 2), 3)
