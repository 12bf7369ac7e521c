from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from instil.engine import Engine, Optimization
from instil.functional.image_contrast import (
    bank_contrastive_loss,
    pair_contrastive_loss,
    random_resized_views,
)
from instil.objectives.logits.kd import KD
from instil.schemes.data_free.cmi import CMI
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from instil.training.step import train_step
from tests.schemes.generator_nets import blank, classifier, maker


def scheme(norm: bool = True, **options: Any) -> CMI:
    options = {
        "iterations": 5,
        "memory": 40,
        "every": 2,
        "statistics_weight": float(norm),
        "contrast_weight": 0.8 * norm,
        "width": 8,
    } | options
    return CMI(classifier(4), Frozen(classifier(6, 1, norm)), {"kd": KD()}, maker(), **options)


def trained(it: CMI, steps: int) -> list[dict[str, float]]:
    it.prepare(blank())
    engine = Engine("cpu")
    engine.setup(it, lambda learner: Optimization("adam", {"lr": 1e-2}))
    return [
        {name: float(value) for name, value in train_step(engine, it, [blank(step)]).items()}
        for step in range(steps)
    ]


def test_keeps_the_contracts() -> None:
    """Without what couples the samples of a batch."""

    def batches(step: int) -> dict[str, Any]:
        return {key: value for key, value in blank(step).items() if value.ndim}

    check_scheme(lambda: scheme(False, until=0.02), batches)


@pytest.mark.parametrize("contrast", ["bank", "pairs"])
def test_the_contrast_makes_images_distinguishable(contrast: str) -> None:
    apart = {}
    for weight in (1e-6, 5.0):
        it = scheme(
            contrast_weight=weight,
            contrast=contrast,
            iterations=60,
            label_weight=0.0,
            adversarial_weight=0.0,
            statistics_weight=0.0,
        )
        trained(it, 1)
        features = it.memory["whole"][:16]
        apart[weight] = float(torch.pdist(features / features.norm(dim=1, keepdim=True)).mean())
    assert apart[5.0] > apart[1e-6]


def test_every_batch_begins_with_the_same_generator_and_the_projector_goes_on() -> None:
    it = scheme()
    it.prepare(blank())
    generator = [value.clone() for value in it.generator.parameters()]
    projector = [value.clone() for value in it.projector.parameters()]
    losses = trained(it, 3)
    assert [sorted(record) for record in losses] == [
        ["generator/contrast", "generator/inversion", "student/kd"],
        ["student/kd"],
        ["generator/contrast", "generator/inversion", "student/kd"],
    ]
    assert all(
        torch.equal(one, other)
        for one, other in zip(it.generator.parameters(), generator, strict=True)
    )
    assert not any(
        torch.equal(one, other)
        for one, other in zip(it.projector.parameters(), projector, strict=True)
    )
    assert int(it.memory.filled) == 32
    whole = it.describe(blank(), it.memory["image"][:32])
    assert torch.allclose(it.memory["whole"][:32], whole, atol=1e-5)


def test_bank_contrast_by_numpy() -> None:
    local, whole = (torch.nn.functional.normalize(torch.randn(9, 4), dim=1) for _ in range(2))
    there = torch.tensor([True] * 7 + [False] * 2)
    similar = (local @ whole.T / 0.3).double().numpy()[:7, :7]
    rows = -np.log(np.exp(np.diag(similar)) / np.exp(similar).sum(1))
    leaf = local.clone().requires_grad_()
    loss = bank_contrastive_loss(leaf, whole, 5, 0.3, there)
    assert float(loss.detach()) == pytest.approx(rows[:5].mean() + rows[5:].mean(), rel=1e-5)
    loss.backward()
    assert torch.isfinite(leaf.grad).all()
    assert (leaf.grad[7:] == 0).all()
    alone = bank_contrastive_loss(local, whole, 5, 0.3, torch.tensor([True] * 5 + [False] * 4))
    few = -np.log(np.exp(np.diag(similar))[:5] / np.exp(similar[:5, :5]).sum(1))
    assert float(alone) == pytest.approx(few.mean(), rel=1e-5)


def test_pair_contrast_by_numpy() -> None:
    one, other = (torch.nn.functional.normalize(torch.randn(4, 3), dim=1) for _ in range(2))
    every = torch.cat([one, other]).double().numpy()
    rows = []
    for row in range(8):
        similar = np.exp(every[row] @ every.T / 0.5)
        rows.append(-np.log(similar[(row + 4) % 8] / (similar.sum() - similar[row])))
    expected = 0.5 / 0.1 * (np.array(rows[:4]) + rows[4:]) / 2
    assert np.allclose(pair_contrastive_loss(one, other, 0.5, 0.1), expected, rtol=1e-5)


def test_views_are_windows() -> None:
    """All of the image is the image; a corner of a quarter is that corner, enlarged."""
    image = torch.randn(2, 1, 6, 6)
    assert torch.allclose(
        random_resized_views(image, torch.tensor([[1.0, 0.3, 0.9]]).expand(2, 3), 0.25),
        image,
        atol=1e-5,
    )
    corner = random_resized_views(image, torch.tensor([[0.0, 0.0, 0.0]]).expand(2, 3), 0.25)
    expected = torch.nn.functional.interpolate(image[:, :, :4, :4], size=(8, 8), mode="bilinear")[
        :, :, :6, :6
    ]
    assert torch.allclose(corner, expected, atol=1e-5)


def test_a_teacher_without_batch_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="set it to 0"):
        scheme(False, contrast_weight=0.5).prepare(blank())
