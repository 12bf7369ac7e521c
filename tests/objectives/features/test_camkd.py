from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.core import Outputs
from instil.objectives.features.camkd import (
    CAMKD,
    camkd_feature_loss,
    camkd_logit_loss,
    camkd_weights,
)
from instil.objectives.logits.kd import kd_loss


def weights(logits: Tensor, target: int) -> list[float]:
    """Compute the weights for one sample from the logits (K, C) of all teachers."""
    losses = [float(np.log(np.exp(row).sum()) - row[target]) for row in logits.numpy()]
    return [(1 - np.exp(loss) / sum(map(np.exp, losses))) / (len(losses) - 1) for loss in losses]


def test_agrees_with_a_plain_loop() -> None:
    student, teachers, target = (
        torch.randn(3, 5).double(),
        torch.randn(4, 3, 5).double(),
        torch.tensor([2, -100, 0]),
    )
    student_features = [torch.randn(3, width, 2, 2).double() for width in (2, 3, 4, 5)]
    teacher_features = [torch.randn_like(stage) for stage in student_features]
    logit_loss = camkd_logit_loss(student, teachers, target, 2.0, "none")
    feature_loss = camkd_feature_loss(student_features, teacher_features, teachers, target, "none")
    for n in range(3):
        parts = [(0.0, 0.0)]
        if target[n] >= 0:
            shares = weights(teachers[:, n], int(target[n]))
            kl = [
                4
                * torch.nn.functional.kl_div(
                    (student[n] / 2).log_softmax(0), (row[n] / 2).softmax(0), reduction="sum"
                )
                for row in teachers
            ]
            parts = [
                (w * float(k), w * ((a[n] - b[n]).numpy() ** 2).mean())
                for w, k, a, b in zip(shares, kl, student_features, teacher_features, strict=True)
            ]
        assert np.isclose(logit_loss[n], sum(part[0] for part in parts), rtol=1e-10)
        assert np.isclose(feature_loss[n], sum(part[1] for part in parts), rtol=1e-10)
    assert torch.allclose(camkd_logit_loss(student, teachers, target, 2.0), logit_loss.sum() / 2)
    assert torch.allclose(
        camkd_feature_loss(student_features, teacher_features, teachers, target),
        feature_loss.sum() / 2,
    )


def test_the_correct_teacher_has_the_largest_weight() -> None:
    logits = torch.tensor([[[4.0, 0, 0]], [[0.0, 0, 0]], [[0.0, 4, 0]]])
    teacher_weights = camkd_weights(logits, torch.tensor([0])).squeeze(1)
    assert (teacher_weights.diff() < 0).all()
    assert torch.isclose(teacher_weights.sum(), torch.tensor(1.0))
    assert torch.isfinite(camkd_weights(1e4 * logits, torch.tensor([2]))).all()


def outputs(seed: int, channels: int, samples: int = 6) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    stage = torch.randn(samples, channels, 2, 2, generator=generator)
    head = torch.randn(7, channels, generator=generator), torch.randn(7, generator=generator)
    return {
        "features": (stage,),
        "logits": torch.nn.functional.linear(stage.mean((2, 3)), *head),
        "head": head,
    }


def test_student_features_pass_each_teachers_classifier() -> None:
    student, one, two = outputs(0, 4), outputs(1, 6), outputs(2, 4)
    objective = CAMKD(feature_weight=3.0)
    objective.build(student, {"members": (one, two)})
    assert [line.split(": ")[0] for line in objective.plan] == [
        "student 0 (4x2x2) <- teacher 0 (6x2x2)",
        "student 0 (4x2x2) <- teacher 0 (4x2x2)",
    ]
    batch = {"label": torch.arange(6)}
    student_features = [adapter(student["features"][0]) for adapter in objective.adapters]
    through = torch.stack(
        [
            torch.nn.functional.linear(stage.mean((2, 3)), *side["head"])
            for stage, side in zip(student_features, (one, two), strict=True)
        ]
    )
    stages = camkd_feature_loss(
        student_features, [one["features"][0], two["features"][0]], through, batch["label"], "none"
    )
    logits = camkd_logit_loss(
        student["logits"],
        torch.stack([one["logits"], two["logits"]]),
        batch["label"],
        reduction="none",
    )
    assert torch.allclose(objective(student, {"members": (one, two)}, batch), logits + 3 * stages)
    objective.feature_weight = 0.0
    assert torch.allclose(objective(student, {"members": (one, two)}, batch), logits)


def test_one_teacher_is_kd_and_a_hint() -> None:
    student, teacher, batch = outputs(0, 4), outputs(1, 4), {"label": torch.arange(6)}
    objective = CAMKD(feature_weight=2.0)
    objective.build(student, teacher)
    hint = (student["features"][0] - teacher["features"][0]).square().flatten(1).mean(1)
    assert torch.allclose(
        objective(student, teacher, batch),
        kd_loss(student["logits"], teacher["logits"], 4.0, reduction="none") + 2 * hint,
    )


def test_a_head_of_another_layer_is_an_error() -> None:
    student, teacher = outputs(0, 4), outputs(1, 6)
    with pytest.raises(
        ValueError,
        match=r"teacher 0: the head is not a classifier of the deepest features\. "
        r"Expected 5 channels, the input size of the head, got 6\.",
    ):
        CAMKD().build(student, teacher | {"head": (torch.zeros(7, 5), torch.zeros(7))})
    message = "teacher 1: no head. Expected features, logits, head, got features, logits."
    with pytest.raises(ValueError, match=message):
        CAMKD().build(
            student,
            {"members": (teacher, {role: teacher[role] for role in ("features", "logits")})},
        )


def test_compiles_without_graph_breaks() -> None:
    student, teachers, target = (
        torch.randn(4, 5),
        torch.randn(3, 4, 5),
        torch.tensor([0, 1, -100, 2]),
    )
    compiled = torch.compile(camkd_logit_loss, fullgraph=True, backend="eager")
    assert torch.allclose(
        compiled(student, teachers, target), camkd_logit_loss(student, teachers, target)
    )
    student_features = [torch.randn(4, 2, 2, 2) for _ in range(3)]
    compiled = torch.compile(camkd_feature_loss, fullgraph=True, backend="eager")
    assert torch.allclose(
        compiled(student_features, student_features[::-1], teachers, target),
        camkd_feature_loss(student_features, student_features[::-1], teachers, target),
    )
