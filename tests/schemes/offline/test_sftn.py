"""SFTN: a teacher that is trained together with branches of the student's architecture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.offline.sftn import SFTN, sftn_loss
from instil.testing import check_scheme
from tests.schemes.stages import images, staged, timed


def build_sftn(**options: float) -> SFTN:
    torch.manual_seed(0)
    objectives = {"cross_entropy": CrossEntropy(average="labelled")}
    return SFTN(staged(6), objectives, branch=staged(3), **options)  # type: ignore[arg-type]


def prepared(**options: float) -> SFTN:
    scheme = build_sftn(**options)
    scheme.train().prepare(images())
    return scheme


def test_contracts() -> None:
    check_scheme(build_sftn, images)


def test_the_divergence_is_from_the_branch_to_the_net_and_reaches_both() -> None:
    branch, net = (
        torch.randn(5, 4, generator=torch.Generator().manual_seed(seed)).double().requires_grad_()
        for seed in range(2)
    )
    loss = sftn_loss(branch, net, 2.0)
    p, q = (
        np.exp(x) / np.exp(x).sum(1, keepdims=True)
        for x in (branch.detach().numpy() / 2, net.detach().numpy() / 2)
    )
    assert loss.item() == pytest.approx(4 * (p * np.log(p / q)).sum(1).mean())
    assert all(gradient.abs().sum() > 0 for gradient in torch.autograd.grad(loss, [branch, net]))
    with pytest.raises(ValueError, match=r"Expected logits \(5, 3\), got \(5, 4\)"):
        sftn_loss(branch, net[:, :3])


def test_a_branch_is_the_rest_of_the_student_on_a_stage_of_the_net() -> None:
    scheme, batch = prepared(label_weight=0.5, kl_weight=2.0), timed()
    outputs = scheme.student(batch)
    logits = []
    for index, (branch, bridge) in enumerate(zip(scheme.branches, scheme.bridges, strict=True)):
        x = bridge(outputs["features"][index])
        for stage in branch.model.stages[index + 1 :]:
            x = stage(x)
        logits.append(branch.model.head(x.mean((2, 3))))
    assert len(logits) == 2
    losses = next(iter(scheme.step(batch))).losses
    label = [
        F.cross_entropy(one, batch["label"], ignore_index=-100)
        for one in (outputs["logits"], *logits)
    ]
    assert torch.allclose(losses["cross_entropy"], label[0] + 0.5 * (label[1] + label[2]) / 2)
    assert torch.allclose(
        losses["friendly"], sum(sftn_loss(one, outputs["logits"]) for one in logits)
    )


def test_what_a_bridge_goes_round_is_not_trained() -> None:
    scheme = prepared()
    still = [
        [name for name, parameter in branch.model.named_parameters() if not parameter.requires_grad]
        for branch in scheme.branches
    ]
    assert {name.split(".")[1] for name in still[0]} == {"0"}
    assert {name.split(".")[1] for name in still[1]} == {"0", "1"}


def test_the_net_is_shipped_without_branches_and_learns_from_them() -> None:
    scheme = prepared()
    assert scheme.export() is scheme.student
    apart = next(iter(scheme.step(timed()))).losses["friendly"]
    deepest = [
        parameter for name, parameter in scheme.student.named_parameters() if "stages.2" in name
    ]
    assert all(gradient.abs().sum() > 0 for gradient in torch.autograd.grad(apart, deepest))


def test_inputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"scheme.stage_pairs: the student has 2 stages and the teacher 3"
    ):
        SFTN(staged(6), {"cross_entropy": CrossEntropy()}, branch=staged(3, stages=2)).prepare(
            images()
        )
    with pytest.raises(ValueError, match="a branch starts after any stage but the last"):
        SFTN(
            staged(6), {"cross_entropy": CrossEntropy()}, branch=staged(3), stage_pairs=[[1, 1]]
        ).prepare(images())
    with pytest.raises(ValueError, match="KD needs logits of the teacher"):
        SFTN(staged(6), {"kd": KD()}, branch=staged(3)).prepare(images())
