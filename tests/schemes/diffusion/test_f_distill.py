from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from instil.core import Objectives
from instil.functional.diffusion.distribution_matching import ratio_weight
from instil.schemes.diffusion.f_distill import FDistill
from instil.testing import check_scheme
from tests.schemes.denoisers import batch, clocked, denoiser, matching, prepared, teacher

GENERATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "reverse_kl": lambda r: -r.log(),
    "forward_kl": lambda r: r * r.log(),
    "jensen_shannon": lambda r: r * r.log() - (r + 1) * ((r + 1) / 2).log(),
    "softened_reverse_kl": lambda r: (r + 1) * ((r + 1) / (2 * r)).log(),
    "hellinger": lambda r: (1 - r.sqrt()).square(),
    "jeffreys": lambda r: (r - 1) * r.log(),
}


def scheme(**options: object) -> FDistill:
    return FDistill(denoiser(), teacher(), matching(), fake_updates=1, **options)


def test_contracts() -> None:
    # See the test of dmd2.
    def make() -> FDistill:
        objectives = Objectives(matching(), {"matching": 0.01})
        return FDistill(denoiser(), teacher(), objectives, fool=1.0, critic=0.0, fake_updates=1)

    check_scheme(make, batch)


@pytest.mark.parametrize("divergence", sorted(GENERATORS))
def test_the_weight_is_the_second_derivative_times_the_squared_ratio(divergence: str) -> None:
    """Up to a constant factor."""
    ratio = torch.linspace(0.2, 5, 9, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(GENERATORS[divergence](ratio).sum(), ratio, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), ratio)
    expected = second * ratio.detach().square()
    weight = ratio_weight(ratio.detach().log(), divergence)
    assert torch.allclose(weight / weight[0], expected / expected[0])


def test_the_gradient_of_an_image_has_the_weight_of_its_score() -> None:
    it = prepared(scheme(divergence="forward_kl"))
    student, target = it.forward_both(clocked())
    expected = 0.5 * student["score"].exp().clamp(0.1, 10)
    assert torch.allclose(target["loss_weight"], expected)
    assert not target["loss_weight"].requires_grad
