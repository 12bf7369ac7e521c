"""DFQ: adversarial generator with constraints from the teacher's BatchNorm layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from instil.modules.batch_statistics import BatchNormStatistics, record_statistics
from instil.objectives.logits.kd import KD
from instil.schemes.bases.generator_losses import balance_loss, disagreement_loss, entropy_loss
from instil.schemes.data_free.dfq import DFQ, gaussian_statistics_loss
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.generator_nets import blank, classifier, maker, shapes, trained


def scheme(norm: bool = True, **options: Any) -> DFQ:
    return DFQ(classifier(4), Frozen(classifier(6, 1, norm)), {"kd": KD(1.0)}, maker(), **options)


def test_keeps_the_contracts() -> None:
    """Without the terms that couple the samples of a batch."""
    check_scheme(lambda: scheme(False, alpha=0.0), shapes)


def test_statistics_are_compared_as_gaussians() -> None:
    draws = torch.Generator().manual_seed(0)
    mean, running_mean = torch.randn(2, 3, generator=draws)
    variance, running_variance = torch.rand(2, 3, generator=draws) + 0.5
    normals = [
        torch.distributions.Normal(m, v.sqrt())
        for m, v in ((mean, variance), (running_mean, running_variance))
    ]
    expected = torch.distributions.kl_divergence(*normals).sum()
    read = BatchNormStatistics(mean, variance, running_mean, running_variance, mean[None])
    assert torch.allclose(gaussian_statistics_loss([read, read]), 2 * expected, rtol=1e-4)
    same = BatchNormStatistics(mean, variance, mean, variance, mean[None])
    assert float(gaussian_statistics_loss([same])) == pytest.approx(0, abs=1e-6)


def test_the_losses_are_the_papers_on_the_generators_images() -> None:
    it = scheme(alpha=0.5)
    it.prepare(blank())
    losses = it.generator_update(blank()).losses
    seen = {"image": it.generate(blank())}
    with record_statistics(it.teacher) as read:
        teacher = it.teacher_outputs(seen)["logits"]
    expected = {
        "challenge": -disagreement_loss(it.student(seen)["logits"], teacher).mean(),
        "statistics": 0.5 * gaussian_statistics_loss(read),
    }
    expected |= {
        "entropy": 0.5 * entropy_loss(teacher).mean(),
        "balanced": 0.5 * balance_loss(teacher),
    }
    assert set(losses) == set(expected)
    assert all(torch.allclose(losses[name], value, rtol=1e-4) for name, value in expected.items())


def test_alpha_holds_the_images_near_what_the_teacher_remembers() -> None:
    apart = {}
    for alpha in (1e-6, 5.0):
        it = scheme(alpha=alpha)
        trained(it, 60)
        with torch.no_grad(), record_statistics(it.teacher) as read:
            it.teacher_outputs({"image": it.generate(blank())})
        apart[alpha] = float(gaussian_statistics_loss(read))
    assert apart[5.0] < apart[1e-6] / 2


def test_a_teacher_without_batch_norm_remembers_nothing() -> None:
    with pytest.raises(ValueError, match=r"no BatchNorm .* set scheme\.alpha: 0"):
        scheme(False).prepare(blank())
