from __future__ import annotations

import pytest
import torch

from instil.functional.diffusion.consistency import earlier_ratio
from instil.schemes.diffusion.easy_consistency import EasyConsistency
from instil.testing import check_scheme
from tests.schemes.denoisers import batch, clocked, denoiser, matching, prepared

HUBER = {"distance": "huber", "huber_width": 0.0}


def test_contracts() -> None:
    check_scheme(lambda: EasyConsistency(denoiser(), matching(**HUBER)), batch)


def test_the_first_loss_is_that_of_diffusion() -> None:
    """The first target is the clean image wherever 1 + 8 sigmoid(-t) is at least 2."""
    it = prepared(EasyConsistency(denoiser(times="log_normal"), matching(**HUBER)))
    first = clocked(progress=0.0)
    sample = it.draw(first)
    student, target = it.forward_both(first)
    ratio = it.schedule.sigma(sample.time) / it.schedule.alpha(sample.time)
    is_clean = ratio < 1.9  # sigmoid(-1.95) is 1 / 8
    assert is_clean.sum() > 10
    assert torch.allclose(target["denoised"][is_clean], sample.clean[is_clean])
    assert torch.allclose(target["loss_weight"][is_clean], 1 / ratio[is_clean])
    update = next(iter(it.step(first)))
    distance = (student["denoised"] - target["denoised"]).flatten(1).norm(dim=1)
    expected = (distance * target["loss_weight"]).mean()
    assert torch.allclose(update.losses["matching"], expected, rtol=1e-4)


def test_later_targets_have_nearly_the_same_noise() -> None:
    it = prepared(EasyConsistency(denoiser(), matching(**HUBER), doublings=10))
    last = clocked(progress=1.0)
    sample = it.draw(last)
    _, target = it.forward_both(last)
    ratio = it.schedule.sigma(sample.time) / it.schedule.alpha(sample.time)
    earlier = earlier_ratio(ratio, 1.0, 10)
    reached = it.schedule.add_noise(sample.clean, sample.noise, it.schedule.time_of_ratio(earlier))
    inside = earlier > 0.01
    assert inside.sum() > 10
    predicted = it.run_student(
        reached[inside], it.schedule.time_of_ratio(earlier[inside]), sample.label[inside]
    )["denoised"]
    assert torch.allclose(target["denoised"][inside], predicted, atol=1e-5)


def test_the_gap_by_hand() -> None:
    ratio = torch.tensor([0.5, 10.0])
    gap = 1 + 8 / (1 + torch.tensor([0.5, 10.0]).exp())
    for progress, stage in ((0.0, 1), (0.3, 3), (0.99, 8), (1.0, 8)):
        expected = ratio * (1 - gap / 2**stage).clamp_min(0)
        assert torch.allclose(earlier_ratio(ratio, progress), expected)
    assert float(earlier_ratio(ratio, 1.0, 20)[1]) == pytest.approx(10.0, rel=1e-5)
