"""AMTML-KD against plain loops, and its groups of feature levels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from instil.core import Batch, Outputs, Schedule
from instil.functional import teacher_mixture
from instil.functional.teacher_mixture import (
    levels_of_member,
    mixture_log_probability,
    teacher_log_weights,
)
from instil.objectives.logits import amtml_kd
from instil.objectives.logits.amtml_kd import (
    AMTMLKD,
    amtml_kd_angle_loss,
    amtml_kd_hint_loss,
    amtml_kd_loss,
)
from instil.objectives.logits.kd import kd_loss
from instil.testing import check_objective


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()


def test_agrees_with_a_plain_loop() -> None:
    student, teachers = (
        torch.randn(3, 5, dtype=torch.float64),
        torch.randn(4, 3, 5, dtype=torch.float64),
    )
    pooled, factors, vector = (
        torch.rand(3, 6).double(),
        torch.randn(4, 6).double(),
        torch.randn(6).double(),
    )
    log_weights = teacher_log_weights(pooled, factors, vector)
    values = amtml_kd_loss(student, teachers, log_weights, 3.0, "none")
    for n in range(3):
        weights = softmax(
            np.array(
                [sum(vector[d] * factors[k, d] * pooled[n, d] for d in range(6)) for k in range(4)]
            )
        )
        assert np.allclose(log_weights[:, n].exp(), weights, rtol=1e-10)
        target = sum(
            w * softmax(teacher[n].numpy() / 3)
            for w, teacher in zip(weights, teachers, strict=True)
        )
        assert np.allclose(
            mixture_log_probability(teachers, log_weights, 3.0)[n].exp(), target, rtol=1e-10
        )
        assert np.isclose(
            values[n],
            9 * sum(target * np.log(target / softmax(student[n].numpy() / 3))),
            rtol=1e-10,
        )


def test_the_angle_loss_agrees_with_a_loop_over_triplets() -> None:
    student, target = torch.rand(4, 3, dtype=torch.float64), torch.rand(4, 3, dtype=torch.float64)

    def cosine(x: np.ndarray, i: int, j: int, k: int) -> float:
        a, b = x[j] - x[i], x[k] - x[i]
        return 0.0 if i in (j, k) else float(a @ b / np.sqrt((a @ a) * (b @ b)))

    terms = []
    for i in range(4):
        for j in range(4):
            for k in range(4):
                difference = abs(cosine(student.numpy(), i, j, k) - cosine(target.numpy(), i, j, k))
                terms.append(difference**2 / 2 if difference < 1 else difference - 0.5)
    assert np.isclose(amtml_kd_angle_loss(student, target), np.mean(terms), rtol=1e-10)


def test_the_hint_ignores_the_norm_of_the_teachers_features() -> None:
    student, teacher = torch.randn(2, 3, 2, 2), torch.randn(2, 3, 2, 2)
    assert torch.allclose(
        amtml_kd_hint_loss(student, teacher), amtml_kd_hint_loss(student, 5 * teacher)
    )
    assert amtml_kd_hint_loss(teacher / teacher.norm(dim=1, keepdim=True), teacher) < 1e-12


def test_one_teacher_is_kd() -> None:
    student, teacher, weights = torch.randn(4, 5), torch.randn(4, 5), torch.zeros(1, 4)
    assert torch.allclose(
        amtml_kd_loss(student, teacher[None], weights, 2.0), kd_loss(student, teacher, 2.0)
    )


def test_every_member_guides_its_group_of_levels() -> None:
    pairs = [(0, 0), (1, 2), (2, 3), (3, 5)]
    assert [levels_of_member(pairs, index, 1) for index in range(1)] == [pairs]
    assert [levels_of_member(pairs, index, 3) for index in range(3)] == [
        [(0, 0)],
        [(1, 2)],
        [(2, 3), (3, 5)],
    ]
    assert [levels_of_member(pairs[:2], index, 3) for index in range(3)] == [
        [(0, 0)],
        [(0, 0)],
        [(1, 2)],
    ]


def outputs(seed: int, channels: int, num_samples: int = 6) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    stages = tuple(
        torch.randn(num_samples, channels, size, size, generator=generator) for size in (4, 2)
    )
    return {"features": stages, "logits": torch.randn(num_samples, 5, generator=generator)}


BATCH: Batch = {"label": torch.zeros(6, dtype=torch.int64)}


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    student, teacher = outputs(0, 4), {"members": (outputs(1, 3), outputs(2, 4))}
    objective = AMTMLKD(temperature=2.0, angle=0.0, hint=0.0, decay=0.0)
    objective.build(student, teacher)
    assert [line.split(" (")[0] for line in objective.plan] == [
        "teacher 0: student 0",
        "teacher 1: student 1",
    ]
    teachers = torch.stack([member["logits"] for member in teacher["members"]])
    log_weights = teacher_log_weights(
        student["features"][1].amax((2, 3)), objective.factors, objective.vector
    )
    soft = amtml_kd_loss(student["logits"], teachers, log_weights, 2.0, "none")
    assert torch.allclose(objective(student, teacher, BATCH), soft)
    objective.hint, objective.decay = 3.0, 0.5
    length = objective.factors.square().sum() + objective.vector.square().sum()
    assert torch.allclose(
        objective(student, teacher, BATCH),
        soft + 0.5 * length + 3 * objective.hints(student, teacher),
    )
    whole = AMTMLKD(temperature=2.0, angle=7.0, hint=3.0, decay=0.5)
    whole.build(student, teacher)
    whole.load_state_dict(objective.state_dict())
    angle = amtml_kd_angle_loss(
        (student["logits"] / 2).softmax(1),
        mixture_log_probability(teachers, log_weights, 2.0).exp(),
    )
    assert torch.allclose(
        whole(student, teacher, BATCH), objective(student, teacher, BATCH).mean() + 7 * angle
    )


def test_the_weights_have_a_gradient() -> None:
    student, teacher = outputs(0, 4), {"members": (outputs(1, 3), outputs(2, 4))}
    objective = AMTMLKD(decay=0.0)
    objective.build(student, teacher)
    for gradient in torch.autograd.grad(
        objective(student, teacher, BATCH), [objective.factors, objective.vector]
    ):
        assert (gradient != 0).any()


def test_a_position_without_a_direction_has_no_gradient() -> None:
    student, teacher = outputs(0, 4), outputs(1, 3)
    student["features"][0][:, :, 0] = 0
    student["features"][0].requires_grad_()
    objective = AMTMLKD()
    objective.build(student, teacher)
    (gradient,) = torch.autograd.grad(objective(student, teacher, BATCH), student["features"][0])
    assert torch.isfinite(gradient).all()
    assert not gradient[:, :, 0].any()


def test_without_angles_the_samples_do_not_depend_on_each_other() -> None:
    assert [AMTMLKD(angle=angle).couples for angle in (0.0, 1.0)] == [False, True]
    assert AMTMLKD(angle=Schedule(0.0, 1.0)).couples  # type: ignore[arg-type]
    check_objective(lambda: AMTMLKD(angle=0.0))


def test_a_member_without_features_is_refused_by_its_index() -> None:
    with pytest.raises(
        ValueError, match=r"teacher 1: features are missing\. Expected features, got logits"
    ):
        AMTMLKD().build(outputs(0, 4), {"members": (outputs(1, 3), {"logits": torch.zeros(6, 5)})})


@pytest.mark.parametrize(
    "name", ["teacher_log_weights", "amtml_kd_loss", "amtml_kd_angle_loss", "amtml_kd_hint_loss"]
)
def test_compiles_whole(name: str) -> None:
    arguments = {
        "teacher_log_weights": (torch.randn(4, 6), torch.randn(3, 6), torch.randn(6)),
        "amtml_kd_loss": (
            torch.randn(4, 5),
            torch.randn(3, 4, 5),
            torch.randn(3, 4).log_softmax(0),
        ),
        "amtml_kd_angle_loss": (torch.rand(4, 5), torch.rand(4, 5)),
        "amtml_kd_hint_loss": (torch.randn(4, 5, 2, 2), torch.randn(4, 5, 2, 2)),
    }[name]
    module = teacher_mixture if name == "teacher_log_weights" else amtml_kd
    function = getattr(module, name)
    assert torch.allclose(
        torch.compile(function, fullgraph=True, backend="eager")(*arguments), function(*arguments)
    )
