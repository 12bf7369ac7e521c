"""Sub-networks on one trunk learn from the classifier of their fused feature maps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.online.ffl import FFL, FeatureFusion
from instil.testing import check_scheme
from tests import nets
from tests.schemes.stages import images, staged, timed


def prepared_scheme(**options: Any) -> FFL:
    torch.manual_seed(0)
    objectives = {"cross_entropy": CrossEntropy(average="labelled"), "kd": KD(3)}
    scheme = FFL(staged(), objectives, **options)
    scheme.train().prepare(images())
    return scheme


def softmax(logits: list[float]) -> list[float]:
    """Probabilities of one sample at temperature 3, by plain arithmetic."""
    powers = [math.exp(value / 3) for value in logits]
    return [power / sum(powers) for power in powers]


def divergence(student: list[list[float]], teacher: list[list[float]]) -> float:
    """Mean KL divergence over the samples at temperature 3, times 9."""
    total = 0.0
    for student_row, teacher_row in zip(student, teacher, strict=True):
        pairs = zip(softmax(teacher_row), softmax(student_row), strict=True)
        total += sum(p * math.log(p / q) for p, q in pairs)
    return 9 * total / len(student)


@pytest.mark.parametrize("branches", [2, 3])
def test_contracts(branches: int) -> None:
    objectives = {"cross_entropy": CrossEntropy(), "kd": KD()}
    check_scheme(lambda: FFL(staged(), objectives, branches), images)


@pytest.mark.parametrize("branches", [2, 3])
def test_losses_match_the_formula_of_the_paper(branches: int) -> None:
    scheme, batch = prepared_scheme(num_branches=branches), timed()
    (update,) = scheme.step(batch)
    logits = [end["logits"] for end in scheme.branch_outputs(scheme.student(batch))]
    label = batch["label"]
    hard = [F.cross_entropy(values, label, ignore_index=-100) for values in logits]
    assert len(hard) == branches + 1
    assert torch.allclose(update.losses["cross_entropy"], torch.stack(hard).sum(), atol=1e-6)
    *sub_networks, fused = [values.tolist() for values in logits]
    ensemble = [
        [sum(values) / branches for values in zip(*rows, strict=True)]
        for rows in zip(*sub_networks, strict=True)
    ]
    soft = divergence(fused, ensemble)
    soft += sum(divergence(sub_network, fused) for sub_network in sub_networks)
    assert update.losses["kd"].item() == pytest.approx(soft, abs=1e-5)


def test_the_fusion_filters_each_channel_and_then_mixes_them() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    fusion = FeatureFusion(first, 2, 3)
    depthwise, pointwise = fusion.body[0], fusion.body[2]
    channels = []
    for i, feature_map in enumerate((first, second)):
        kernel, bias = depthwise.weight[i : i + 1], depthwise.bias[i : i + 1]
        channels.append(F.conv2d(feature_map, kernel, bias, padding=1).relu()[:, 0])
    weight = pointwise.weight.flatten()
    mixed = (weight[0] * channels[0] + weight[1] * channels[1] + pointwise.bias).relu()
    expected = fusion.head(mixed.mean((1, 2)).unsqueeze(1))
    assert torch.allclose(fusion([first, second])["logits"], expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 5, 6), (2, 6)])
def test_tokens_and_vectors_are_fused_by_a_linear_map(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    maps = [torch.randn(shape) for _ in range(3)]
    outputs = FeatureFusion(maps[0], 3, 4)(maps)
    assert outputs["logits"].shape == (2, 4)
    assert outputs["embedding"].shape == (2, 6)


def test_the_mean_of_the_sub_networks_teaches_the_fusion_and_gets_no_gradient() -> None:
    scheme, batch = prepared_scheme(), timed()
    outputs = scheme.student(batch)
    ends = scheme.branch_outputs(outputs)
    teachers, losses = scheme.teachers_for(ends, outputs["features"], batch)
    assert losses == {}
    assert torch.equal(teachers[0][0]["logits"], ends[-1]["logits"])
    assert torch.equal(teachers[1][0]["logits"], ends[-1]["logits"])
    assert torch.equal(teachers[2][0]["logits"], (ends[0]["logits"] + ends[1]["logits"]) / 2)
    assert not any(teacher["logits"].requires_grad for (teacher,) in teachers)


def test_the_student_alone_is_exported_and_all_parts_learn() -> None:
    scheme = prepared_scheme()
    assert scheme.export() is scheme.student
    (update,) = scheme.step(timed())
    sum(update.losses.values()).backward()  # type: ignore[union-attr]
    assert scheme.fusion is not None
    for parameter in (*scheme.fusion.parameters(), *scheme.branches.parameters()):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def test_a_net_without_stages_is_refused() -> None:
    with pytest.raises(ValueError, match="branches start from the stages before the last"):
        FFL(nets.net(), {"cross_entropy": CrossEntropy()}).prepare(nets.batch())
