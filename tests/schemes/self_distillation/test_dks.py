"""Classifiers after every stage learn from each other."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.self_distillation.dks import DKS
from instil.testing import check_scheme
from tests.schemes.stages import images, staged, timed


def test_contracts() -> None:
    check_scheme(lambda: DKS(staged(), {"cross_entropy": CrossEntropy(), "kd": KD()}), images)


def test_each_learns_from_the_mean_over_the_others_and_none_learns_to_teach() -> None:
    scheme, batch = DKS(staged(), {"kd": KD(1)}), timed()
    scheme.prepare(batch)
    (update,) = scheme.step(batch)
    logits = [end["logits"] for end in scheme.branch_outputs(scheme.student(batch))]
    apart = [
        F.kl_div(one.log_softmax(1), other.detach().softmax(1), reduction="batchmean")
        for i, one in enumerate(logits)
        for j, other in enumerate(logits)
        if i != j
    ]
    assert len(apart) == 6
    expected = torch.stack(apart).sum() / 2
    assert torch.allclose(update.losses["kd"], expected, atol=1e-6)
    parameters = list(scheme.student.parameters())
    ours = torch.autograd.grad(update.losses["kd"], parameters)
    for left, right in zip(ours, torch.autograd.grad(expected, parameters), strict=True):
        assert torch.allclose(left, right, atol=1e-6)
    assert scheme.export() is scheme.student
