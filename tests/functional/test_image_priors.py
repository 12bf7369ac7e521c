from __future__ import annotations

import numpy as np
import pytest
import torch

from instil.functional.image_priors import image_norm, total_variation


@pytest.mark.parametrize("order", [1, 2])
def test_total_variation_by_numpy(order: int) -> None:
    image = torch.randn(3, 2, 5, 4)
    expected = []
    for one in image.double().numpy():
        total = 0.0
        for down, across in ((0, 1), (1, 0), (1, 1), (1, -1)):
            apart = [
                one[c, y, x] - one[c, y + down, x + across]
                for c in range(2)
                for y in range(5 - down)
                for x in range(max(0, -across), 4 - max(0, across))
            ]
            total += np.mean(np.abs(apart)) if order == 1 else np.linalg.norm(apart)
        expected.append(total)
    assert np.allclose(total_variation(image, order), expected, rtol=1e-5)


def test_norm_of_all_images_together_is_not_the_sum_of_theirs() -> None:
    image = torch.randn(3, 2, 5, 4)
    assert total_variation(image, per="batch").shape == ()
    assert float(total_variation(image, per="batch")) < float(total_variation(image).sum())
    assert float(total_variation(image[:1], per="batch")) == pytest.approx(
        float(total_variation(image[:1]))
    )


def test_one_colour_varies_nowhere_and_its_gradient_is_finite() -> None:
    image = torch.ones(2, 1, 4, 4, requires_grad=True)
    total_variation(image).sum().backward()
    assert torch.equal(image.grad, torch.zeros_like(image))


def test_size() -> None:
    assert torch.allclose(image_norm(torch.full((2, 1, 3, 3), 2.0)), torch.tensor([6.0, 6.0]))
