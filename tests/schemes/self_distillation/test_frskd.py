"""FRSKD: refined features of a network are its own teacher."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from instil.objectives.features.attention_transfer import AttentionTransfer
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.self_distillation.frskd import FRSKD, Refiner
from instil.testing import check_scheme
from tests import nets
from tests.schemes.stages import images, staged, timed


def build_frskd() -> FRSKD:
    torch.manual_seed(0)
    return FRSKD(
        staged(),
        {
            "cross_entropy": CrossEntropy(average="labelled"),
            "kd": KD(4),
            "attention_transfer": AttentionTransfer(),
        },
    )


def prepared() -> FRSKD:
    scheme = build_frskd()
    scheme.train().prepare(images())
    return scheme


def test_contracts() -> None:
    check_scheme(build_frskd, images)


def test_the_student_learns_from_the_self_teacher_and_both_from_the_label() -> None:
    scheme, batch = prepared(), timed()
    own, refined = scheme.branch_outputs(scheme.student(batch))
    losses = next(iter(scheme.step(batch))).losses
    label = [
        F.cross_entropy(end["logits"], batch["label"], ignore_index=-100) for end in (own, refined)
    ]
    assert torch.allclose(losses["cross_entropy"], sum(label))
    soft = [(end["logits"].detach().double().numpy() / 4) for end in (own, refined)]
    logs = [values - np.log(np.exp(values).sum(1, keepdims=True)) for values in soft]
    assert losses["kd"].item() == pytest.approx(
        16 * (np.exp(logs[1]) * (logs[1] - logs[0])).sum(1).mean(), rel=1e-4
    )
    apart = [
        np.square(
            [
                a / np.linalg.norm(a) - b / np.linalg.norm(b)
                for a, b in zip(attention(student_stage), attention(refined_stage), strict=True)
            ]
        ).mean()
        for student_stage, refined_stage in zip(own["features"], refined["features"], strict=True)
    ]
    assert losses["attention_transfer"].item() == pytest.approx(sum(apart), rel=1e-3)


def attention(stage: torch.Tensor) -> np.ndarray:
    """Return the mean square over channels, flat."""
    return np.square(stage.detach().double().numpy()).mean(1).reshape(len(stage), -1)


def test_the_self_teacher_hears_of_the_label_alone() -> None:
    scheme, batch = prepared(), timed()
    losses = next(iter(scheme.step(batch))).losses
    (losses["kd"] + losses["attention_transfer"]).backward(retain_graph=True)
    assert all(
        parameter.grad is None or parameter.grad.abs().max() < 1e-7
        for parameter in scheme.branches.parameters()
    )
    assert any(
        parameter.grad.abs().max() > 1e-5
        for parameter in scheme.student.parameters()
        if parameter.grad is not None
    )
    losses["cross_entropy"].backward()
    assert all(
        parameter.grad is not None and parameter.grad.any()
        for parameter in scheme.branches.parameters()
    )


def test_the_refined_stages_have_the_grids_of_the_net_and_depend_on_all_stages() -> None:
    stages = tuple(
        torch.rand(2, *shape, requires_grad=True) for shape in ((3, 6, 6), (6, 3, 3), (12, 2, 2))
    )
    refined = Refiner(stages, 5)(stages)
    shapes = [tuple(stage.shape) for stage in refined["features"]]
    assert shapes == [(2, 6, 6, 6), (2, 12, 3, 3), (2, 24, 2, 2)]
    assert all(stage.min() >= 0 for stage in refined["features"])
    assert refined["logits"].shape == (2, 5)
    for end in (refined["features"][0], refined["features"][-1]):
        assert all(
            gradient.any()
            for gradient in torch.autograd.grad(end.square().sum(), stages, retain_graph=True)
        )


def test_tokens_are_refined_too() -> None:
    stages = tuple(torch.rand(2, 5, width) for width in (4, 8))
    refined = Refiner(stages, 3, width=1)(stages)["features"]
    assert [tuple(stage.shape) for stage in refined] == [(2, 5, 4), (2, 5, 8)]


def test_a_net_without_stages_is_refused() -> None:
    with pytest.raises(ValueError, match="two or more 'features' of the student"):
        FRSKD(nets.net(8), {"kd": KD()}).prepare(nets.batch())


def test_the_student_is_exported_without_the_self_teacher() -> None:
    scheme = prepared()
    assert scheme.export() is scheme.student
