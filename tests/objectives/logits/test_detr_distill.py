"""DETRDistill against a plain loop over all assignments."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from instil.core import Objectives
from instil.objectives.logits.detr_distill import DETRDistill, detr_distill_loss

WEIGHTS = (1.5, 5.0, 2.0, 0.5)


def divergence(teacher: Tensor, student: Tensor, binary: bool) -> float:
    if not binary:
        p, q = teacher.softmax(0).tolist(), student.softmax(0).tolist()
        return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    total = 0.0
    for a, b in zip(teacher.sigmoid().tolist(), student.sigmoid().tolist(), strict=True):
        total += a * math.log(a / b) + (1 - a) * math.log((1 - a) / (1 - b))
    return total


def overlap(one: list[float], two: list[float]) -> float:
    edges = []
    for x, y, width, height in (one, two):
        edges.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    a, b = edges
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = one[2] * one[3] + two[2] * two[3] - width * height
    outer = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return width * height / union - (outer - union) / outer


def expected_loss(sides: list[Tensor], row: int, binary: bool) -> float:
    student, teacher, student_boxes, teacher_boxes = (side[row] for side in sides)
    num_student, num_teacher = len(student), len(teacher)

    def cost(i: int, j: int) -> float:
        boxes = teacher_boxes[i].tolist(), student_boxes[j].tolist()
        distance = sum(abs(a - b) for a, b in zip(*boxes, strict=True))
        class_cost = divergence(teacher[i], student[j], binary)
        parts = (class_cost, distance, 1 - overlap(*boxes))
        return sum(weight * part for weight, part in zip(WEIGHTS[:3], parts, strict=True))

    orders = itertools.permutations(range(num_student), num_teacher)
    order = min(orders, key=lambda order: sum(cost(i, j) for i, j in enumerate(order)))
    groups: dict[bool, list[float]] = {True: [], False: []}
    for i, j in enumerate(order):
        has_object = bool(teacher[i].max() > 0) if binary else int(teacher[i].argmax()) < 2
        groups[has_object].append(cost(i, j))
    means = [sum(group) / len(group) if group else 0.0 for group in groups.values()]
    return means[0] + WEIGHTS[3] * means[1]


@pytest.mark.parametrize("binary", [False, True])
def test_equals_the_formula(binary: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    sides = [torch.randn(3, count, 3, generator=generator).double() for count in (5, 4)]
    for count in (5, 4):
        sides.append(0.2 + 0.6 * torch.rand(3, count, 4, generator=generator).double())
    values = detr_distill_loss(*sides, binary, WEIGHTS, "none")
    expected = [expected_loss(sides, row, binary) for row in range(3)]
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64))


def test_the_order_of_the_queries_does_not_matter() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 6, 4, generator=generator)
    boxes = torch.rand(2, 6, 4, generator=generator)
    order = torch.randperm(6, generator=generator)
    loss = detr_distill_loss(logits[:, order], logits, boxes[:, order], boxes)
    assert loss.abs() < 1e-5


def test_wrong_detectors() -> None:
    boxes = torch.rand(1, 4, 4)
    with pytest.raises(ValueError, match="student_logits: other classes than the teacher"):
        detr_distill_loss(torch.zeros(1, 4, 3), torch.zeros(1, 4, 2), boxes, boxes)
    with pytest.raises(ValueError, match=r"fewer queries than the teacher\. Expected at least 4"):
        detr_distill_loss(torch.zeros(1, 3, 3), torch.zeros(1, 4, 3), boxes[:, :3], boxes)
    objectives = Objectives({"it": DETRDistill()})
    student = {"query_logits": torch.zeros(1, 4, 3), "query_boxes": boxes}
    teacher = {"query_binary_logits": torch.zeros(1, 4, 3), "query_boxes": boxes}
    with pytest.raises(ValueError, match="Expected the same kind, got query_logits of the student"):
        objectives.build(student, teacher)
