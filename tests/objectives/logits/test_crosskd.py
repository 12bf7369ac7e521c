"""CrossKD: the loss against a plain loop, and detectors of torchvision."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.core import Net, Objectives
from instil.data.sources.digit_objects import digit_objects
from instil.networks import factory
from instil.objectives.logits.crosskd import CrossKD, cross_kd_loss, with_statistics_of
from instil.tasks.detection import call
from instil.teachers.frozen import Frozen

SMALL = {"width": 4, "strides": [8], "pyramid_channels": 32, "topk_candidates": 20}


def overlap(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    union = sum(areas) - width * height
    outer = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return width * height / union - (outer - union) / outer


def test_equals_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 5, 3, generator=generator).double() for _ in range(2))
    boxes = [torch.rand(2, 5, 4, generator=generator).double() for _ in range(2)]
    boxes = [torch.cat([box[..., :2], box[..., :2] + box[..., 2:]], -1) for box in boxes]
    expected = []
    for row in range(2):
        total, weights = 0.0, 0.0
        for anchor in range(5):
            p = teacher[row, anchor].sigmoid().tolist()
            q = student[row, anchor].sigmoid().tolist()
            for a, b in zip(p, q, strict=True):
                entropy = -a * math.log(b) - (1 - a) * math.log(1 - b)
                total += abs(a - b) ** 2 * entropy
            pair = [box[row, anchor].tolist() for box in boxes]
            total += 0.5 * max(p) * (1 - overlap(*pair))
            weights += max(p)
        expected.append(total / max(1.0, weights))
    values = cross_kd_loss(student, teacher, *boxes, beta=2.0, box_weight=0.5, reduction="none")
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64))


def test_features_get_the_statistics_of_the_teacher() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), 5 + 3 * torch.randn(2, 3, 4, 4)
    aligned = with_statistics_of(student, teacher)
    for axis in (aligned.mean, aligned.std):
        torch.testing.assert_close(
            axis((0, 2, 3)), getattr(teacher, axis.__name__)((0, 2, 3)), rtol=1e-4, atol=1e-4
        )


def detector(name: str, seed: int, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    facts = {"classes": 10, "channels": 1, "size": 64}
    return factory.build(f"torchvision:{name}", SMALL | options, **facts)


def batch() -> dict[str, Tensor]:
    return digit_objects(4, 1).train.__getitems__([0, 1, 2, 3])


@pytest.mark.parametrize("name", ["RetinaNet", "FCOS"])
def test_heads_of_torchvision(name: str) -> None:
    """The rest of the teacher's own head reproduces the teacher's predictions."""
    pytest.importorskip("torchvision")
    teacher = detector(name, 0).eval()
    outputs = call(teacher, batch())
    for position in (0, 3):
        features = [outputs[role][position] for role in ("class_features", "box_features")]
        logits, boxes = outputs["dense_head"].finish(*features, position)
        torch.testing.assert_close(logits, outputs["anchor_logits"])
        torch.testing.assert_close(boxes, outputs["anchor_boxes"])
    # The gradient reaches the student's features, but not its last layers.
    student = Net(detector(name, 1).train(), call)
    frozen = Frozen(Net(teacher, call))
    objectives = Objectives({"crosskd": CrossKD()})
    sides = student(batch()), frozen(batch())
    objectives.build(*sides)
    objectives(*sides, batch()).losses["crosskd"].backward()
    head: Any = student.model.head  # type: ignore[union-attr]
    assert next(head.classification_head.conv.parameters()).grad is not None
    assert head.classification_head.cls_logits.weight.grad is None
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize(
    ("objective", "options", "message"),
    [
        (CrossKD(), {"aspect_ratios": [1.0]}, "student and teacher differ in anchors and classes"),
        (CrossKD(), {"pyramid_channels": 16}, "the heads differ in channels.*got 16 and 32"),
        (CrossKD(position=9), {}, "position: beyond the head. Expected 0 to 4, got 9"),
    ],
)
def test_heads_that_do_not_fit(objective: CrossKD, options: dict[str, Any], message: str) -> None:
    pytest.importorskip("torchvision")
    sides = [call(detector("RetinaNet", 0, **changes).eval(), batch()) for changes in (options, {})]
    with pytest.raises(ValueError, match=message):
        Objectives({"crosskd": objective}).build(*sides)
