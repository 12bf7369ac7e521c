from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from instil.engine import Engine, Optimization
from instil.functional.keyed_random import keyed_normal
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.bases.inversion import decision_adversarial_loss
from instil.schemes.data_free.fast_data_free import FastDataFree
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from instil.training.step import train_step
from tests.schemes.generator_nets import blank, classifier, maker


def scheme(norm: bool = True, **options: Any) -> FastDataFree:
    options = {
        "iterations": 4,
        "memory": 48,
        "every": 2,
        "statistics_weight": 10.0 if norm else 0.0,
    } | options
    return FastDataFree(
        classifier(4),
        Frozen(classifier(6, 1, norm)),
        {"kd": KD(), "cross_entropy": CrossEntropy()},
        maker(),
        **options,
    )


def trained(it: FastDataFree, steps: int, lr: float = 1e-2) -> list[dict[str, float]]:
    it.prepare(blank())
    engine = Engine("cpu")
    engine.setup(it, lambda learner: Optimization("adam", {"lr": lr}))
    return [
        {name: float(value) for name, value in train_step(engine, it, [blank(step)]).items()}
        for step in range(steps)
    ]


def test_keeps_the_contracts() -> None:
    def batches(step: int) -> dict[str, Any]:
        return {key: value for key, value in blank(step).items() if value.ndim}

    check_scheme(lambda: scheme(False, until=0.02), batches)
    check_scheme(
        lambda: scheme(False, iterations=2, adversarial_weight=0.0, shift=1, every=1, until=0.02),
        batches,
    )


def test_one_inner_update_and_the_way_back_by_hand() -> None:
    """Codes and generator take a step on the loss of the paper; the meta-generator goes a quarter
    of the way.
    """
    it = scheme(False, iterations=1, reuse=0.25, label_weight=0.7, adversarial_weight=0.3)
    it.prepare(blank())
    batch = it.before_step(blank())
    parameters = {
        name: value.detach().clone() for name, value in it.generator.model.named_parameters()
    }
    expected = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    image = torch.func.functional_call(
        it.generator.model, expected, (keyed_normal(batch, 4, "scheme.codes"),)
    )
    teacher, student = (
        it.teacher({"image": image}, grad=True)["logits"],
        it.student({"image": image})["logits"],
    )
    p, q = teacher.softmax(1), student.softmax(1)
    agree = (teacher.argmax(1) == student.argmax(1)).float()
    loss = (
        0.7 * F.cross_entropy(teacher, batch["label"])
        - 0.3 * (agree * (p * (p.log() - q.log())).sum(1)).mean()
    )
    gradients = torch.autograd.grad(loss, list(expected.values()))
    engine = Engine("cpu")
    engine.setup(it, lambda learner: Optimization("sgd", {"lr": 0.5}))
    train_step(engine, it, [blank()])
    for (name, value), gradient in zip(parameters.items(), gradients, strict=True):
        assert torch.allclose(
            it.generator.model.get_parameter(name), value - 0.25 * 0.5 * gradient, atol=1e-6
        ), name


def test_a_generator_that_is_reused_begins_better() -> None:
    first = {}
    for reuse in (0.01, 0.9):
        losses = trained(scheme(reuse=reuse, iterations=6, every=1, adversarial_weight=0.0), 15)
        first[reuse] = losses[-1]["generator/inversion"]
    assert first[0.9] < first[0.01]


def test_steps_without_new_images_train_the_student_alone() -> None:
    it = scheme(every=3)
    losses = trained(it, 5)
    assert [sorted(record) for record in losses] == [
        sorted(
            [
                "student/kd",
                "student/cross_entropy",
                *(["generator/inversion"] if step in (0, 3) else []),
            ]
        )
        for step in range(5)
    ]
    assert int(it.memory.filled) == 32
    remembered_images = it.memory["image"][:32]
    assert torch.isin(it.synthetic_images(blank(7)), remembered_images).all()


def test_the_codes_learn_too() -> None:
    values = {}
    for rate in (1e-6, 1.0):
        it = scheme(False, latent_rate=rate, iterations=3)
        trained(it, 1, lr=1e-6)
        values[rate] = F.cross_entropy(
            it.teacher_outputs({"image": it.memory["image"][:16]})["logits"],
            it.memory["label"][:16],
        )
    assert values[1.0] < values[1e-6]


def test_decision_adversarial_counts_agreement_alone() -> None:
    student, teacher = (
        torch.tensor([[2.0, 0, 0], [0, 2.0, 0]]),
        torch.tensor([[3.0, 1, 0], [3.0, 1, 0]]),
    )
    values = decision_adversarial_loss(student, teacher)
    p, q = teacher[0].softmax(0), student[0].softmax(0)
    assert values[1] == 0
    assert torch.allclose(values[0], -(p * (p / q).log()).sum())


def test_a_generator_of_another_shape_is_refused() -> None:
    it = scheme()
    with pytest.raises(ValueError, match="the shape of the data"):
        it.prepare(blank() | {"image": torch.zeros(16, 1, 5, 5)})


def test_a_teacher_without_batch_norm_is_refused_before_training() -> None:
    with pytest.raises(ValueError, match=r"no BatchNorm .* set scheme\.statistics_weight: 0"):
        scheme(False, statistics_weight=1.0).prepare(blank())
