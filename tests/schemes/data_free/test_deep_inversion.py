from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from instil.modules.batch_statistics import bn_statistics_loss, record_statistics
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.data_free.deep_inversion import DeepInversion, competition
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.generator_nets import blank, classifier, rows


def scheme(norm: bool = True, **options: Any) -> DeepInversion:
    options = {"iterations": 20, "memory": 48, "statistics_weight": 10.0 if norm else 0.0} | options
    inversion = DeepInversion(
        classifier(4),
        Frozen(classifier(6, 1, norm)),
        {"kd": KD(), "cross_entropy": CrossEntropy()},
        **options,
    )
    inversion.prepare(blank())
    return inversion


def cost(teacher: Frozen, image: torch.Tensor, target: torch.Tensor) -> tuple[float, float]:
    with record_statistics(teacher) as read:
        logits = teacher({"image": image})["logits"]
    return float(F.cross_entropy(logits, target)), float(bn_statistics_loss(read)) if read else 0.0


def test_keeps_the_contracts() -> None:
    def batches(step: int) -> dict[str, Any]:
        return {key: value for key, value in blank(step).items() if value.ndim}

    check_scheme(
        lambda: scheme(False, iterations=3, until=0.02, variation_weight=0.1, size_weight=0.1),
        batches,
    )
    check_scheme(lambda: scheme(False, iterations=2, every=3, competition_weight=1.0), batches)


def test_images_are_named_as_drawn_and_look_to_the_batch_norms_as_real_ones_did() -> None:
    it = scheme(iterations=100)
    batch = it.before_step(blank())
    noise = torch.rand(16, 1, 6, 6)
    named, apart = cost(it.teacher, batch["image"], batch["label"])
    named_before, apart_before = cost(it.teacher, noise, batch["label"])
    assert named < named_before / 2
    assert apart < apart_before
    assert len(set(batch["label"].tolist())) > 2
    assert float(batch["image"].min()) >= 0
    assert float(batch["image"].max()) <= 1
    unheeded = scheme(iterations=100, statistics_weight=0.0)
    assert apart < cost(it.teacher, unheeded.before_step(blank())["image"], batch["label"])[1] / 2


def test_each_image_is_its_own_and_the_nets_are_left_alone() -> None:
    it = scheme(False)
    before = copy.deepcopy(it.state_dict())
    whole = it.before_step(blank())
    part = it.before_step(rows(blank(), slice(5, 12)))
    assert torch.allclose(part["image"], whole["image"][5:12], atol=1e-5)
    assert all(parameter.grad is None for parameter in it.parameters())
    assert all(torch.equal(value, before[name]) for name, value in it.state_dict().items())


def test_created_images_are_remembered_and_then_trained_on() -> None:
    it = scheme(False, every=2, until=0.03)
    learnt = []
    for step in range(5):
        batch = it.before_step(blank(step))
        (update,) = it.step(batch)
        assert ("made.image" in update.state_updates) == (step in (0, 2))
        it.after_step(update.state_updates)
        learnt.append(batch)
    images = torch.cat([learnt[0]["image"], learnt[2]["image"]])
    for batch in (learnt[3], learnt[4]):
        for image, label in zip(batch["image"], batch["label"], strict=True):
            row = int((images - image).flatten(1).abs().sum(1).argmin())
            assert torch.equal(images[row], image)
            assert label == torch.cat([learnt[0]["label"], learnt[2]["label"]])[row]
    assert torch.isin(it.synthetic_images(blank(9)), images).all()


def test_competition_makes_the_student_disagree() -> None:
    images = {
        weight: scheme(False, iterations=60, competition_weight=weight) for weight in (0.0, 5.0)
    }
    apart = {}
    for weight, it in images.items():
        batch = it.before_step(blank())
        apart[weight] = float(
            competition(it.student(batch)["logits"], it.teacher_outputs(batch)["logits"])
            .mean()
            .detach()
        )
    assert apart[5.0] < apart[0.0]


def test_competition_by_numpy() -> None:
    student, teacher = torch.randn(6, 5), 3 * torch.randn(6, 5)
    p, q = (
        np.exp(x / 2) / np.exp(x / 2).sum(1, keepdims=True)
        for x in (student.double().numpy(), teacher.double().numpy())
    )
    middle = (p + q) / 2
    expected = 1 - ((p * np.log(p / middle)).sum(1) + (q * np.log(q / middle)).sum(1)) / 2
    assert np.allclose(competition(student, teacher, 2.0), expected, rtol=1e-5)
    assert torch.allclose(competition(teacher, teacher), torch.ones(6))
    leaf = (1e4 * student).requires_grad_()
    competition(leaf, 1e4 * teacher).sum().backward()
    assert torch.isfinite(leaf.grad).all()


def test_inputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no BatchNorm .* set scheme\.statistics_weight: 0"):
        scheme(False, statistics_weight=1.0).prepare(blank())
    with pytest.raises(ValueError, match="needs a teacher"):
        DeepInversion(classifier(), None, {"kd": KD()}).prepare(blank())
    with pytest.raises(ValueError, match="in the shape of 'image'"):
        DeepInversion(classifier(), Frozen(classifier()), {"kd": KD()}).prepare(
            {"x": torch.zeros(2, 3)}
        )
