"""Attacks on images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from instil.functional.attacks import fgsm, pgd, sign_gradient
from tests.schemes.image_nets import images, net


def away(image: Tensor) -> Tensor:
    """Loss whose gradient at each pixel is 2 (x - 0.4)."""
    return (image - 0.4).square().flatten(1).sum(1)


@pytest.mark.parametrize("random", [True, False])
def test_pgd_is_the_loop_of_the_paper(random: bool) -> None:
    image, generator = images()["image"], torch.Generator().manual_seed(1)
    start = torch.rand(image.shape, generator=generator)
    actual = pgd(away, image, 0.1, 0.03, 4, start if random else None).flatten().tolist()
    for x, u, attacked in zip(
        image.flatten().tolist(), start.flatten().tolist(), actual, strict=True
    ):
        at = min(max(x + 0.1 * (2 * u - 1), 0), 1) if random else x
        for _ in range(4):
            at += 0.03 if at > 0.4 else -0.03
            at = min(max(min(max(at, x - 0.1), x + 0.1), 0), 1)
        assert attacked == pytest.approx(at, abs=1e-6)


def test_fgsm_is_one_step_of_the_whole_epsilon() -> None:
    image = images()["image"]
    assert torch.allclose(fgsm(away, image, 0.1), (image + 0.1 * (image - 0.4).sign()).clamp(0, 1))


def test_attacked_images_stay_in_the_box_and_fare_worse() -> None:
    model, image = net(3).model, images()["image"]
    target = model(image).argmax(1)

    def threat(changed: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(changed), target, reduction="none")

    attacked = pgd(threat, image, 0.2, 0.05, 10)
    assert not attacked.requires_grad
    assert (attacked - image).abs().max() <= 0.2 + 1e-6
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert (threat(attacked) > threat(fgsm(threat, image, 0.0))).all()
    assert threat(attacked).mean() >= threat(fgsm(threat, image, 0.2)).mean() - 1e-6
    assert torch.equal(pgd(threat, image, 0.0, 0.05, 3), image)


def test_an_attack_leaves_no_gradient_and_works_where_gradients_are_off() -> None:
    model, image = net(3).model, images()["image"]
    with torch.no_grad():
        direction = sign_gradient(lambda x: model(x).square().sum(1), image)
    assert set(direction.unique().tolist()) <= {-1.0, 0.0, 1.0}
    assert all(parameter.grad is None for parameter in model.parameters())
