from __future__ import annotations

import numpy as np
import torch

from instil.functional.similarities import (
    centred,
    inner_products,
    pairwise_distances,
    pairwise_squared_distances,
)


def test_inner_products_and_distances_agree_with_plain_loops() -> None:
    samples = torch.randn(4, 3, 2, dtype=torch.float64)
    flat = samples.flatten(1).numpy()
    assert np.allclose(inner_products(samples), [[a @ b for b in flat] for a in flat])
    assert np.allclose(
        pairwise_distances(samples), [[np.sqrt(((a - b) ** 2).sum()) for b in flat] for a in flat]
    )


def test_samples_that_coincide_have_no_gradient_between_them() -> None:
    samples = torch.ones(3, 4, requires_grad=True)
    apart = pairwise_distances(samples)
    assert torch.equal(apart, torch.zeros(3, 3))
    assert torch.equal(torch.autograd.grad(apart.sum(), samples)[0], torch.zeros(3, 4))


def test_distances_have_gradients_of_any_order() -> None:
    samples = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pairwise_distances, (samples,))
    assert torch.autograd.gradgradcheck(pairwise_distances, (samples,))


def test_no_distance_consists_of_rounding_errors() -> None:
    """Two near samples are separated or coincide; far from the origin they are separated as well
    as near it.
    """
    samples = torch.randn(20, 512)
    samples[1] = samples[0] + 1e-5 * torch.randn(512)
    samples[2] = samples[0] + 1e-2 * torch.randn(512)
    for offset in (0.0, 100.0):
        moved = (samples + offset).requires_grad_()
        apart = pairwise_distances(moved)
        assert apart[0, 1] == 0
        expected = (moved.detach()[0] - moved.detach()[2]).double().norm()
        assert torch.isclose(apart[0, 2].double(), expected, rtol=0.05)
        (gradient,) = torch.autograd.grad(apart.sum(), moved)
        assert gradient.norm(dim=1).amax() < 2 * len(samples)
        assert torch.equal(pairwise_squared_distances(moved).diagonal(), torch.zeros(20))


def test_autocast_does_not_lower_the_precision() -> None:
    samples = torch.randn(4, 300)
    expected = samples @ samples.T
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(inner_products(samples), expected)


def test_centred_rows_and_columns_have_mean_zero() -> None:
    matrix = torch.randn(5, 5, dtype=torch.float64)
    middle = np.eye(5) - np.ones((5, 5)) / 5
    assert np.allclose(centred(matrix), middle @ matrix.numpy() @ middle)
