"""Losses of SAM, MobileSAM and EdgeSAM against loops over masks."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from instil.functional.masks import mask_iou
from instil.functional.prompts import box_of, sample_points
from instil.objectives.features.mobile_sam import mobile_sam_loss
from instil.objectives.labels.segment_anything import segment_anything_loss
from instil.objectives.logits.edge_sam import edge_sam_loss


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def bce(logits: torch.Tensor, target: torch.Tensor) -> float:
    pairs = zip(logits.sigmoid().flatten().tolist(), target.flatten().tolist(), strict=True)
    values = [-t * math.log(p) - (1 - t) * math.log(1 - p) for p, t in pairs]
    return sum(values) / len(values)


def dice(logits: torch.Tensor, target: torch.Tensor) -> float:
    p = logits.sigmoid()
    return float(1 - (2 * (p * target).sum() + 1) / (p.sum() + target.sum() + 1))


def test_edge_sam_is_the_mean_over_prompts_and_candidates() -> None:
    student, teacher = draw(2, 3, 2, 4, 4), draw(2, 3, 2, 4, 4, seed=1)
    for hard in (True, False):
        expected = []
        for n in range(2):
            masks = [(student[n, p, m], teacher[n, p, m]) for p in range(3) for m in range(2)]
            targets = [(t > 0).double() if hard else t.sigmoid() for _, t in masks]
            values = [
                2 * bce(s, t) + 3 * dice(s, t) for (s, _), t in zip(masks, targets, strict=True)
            ]
            expected.append(sum(values) / 6)
        loss = edge_sam_loss(student, teacher, 2.0, 3.0, hard, "none")
        torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float64))
    resized = F.interpolate(student.flatten(1, 2), (8, 8), mode="bilinear").view(2, 3, 2, 8, 8)
    large = draw(2, 3, 2, 8, 8, seed=2)
    torch.testing.assert_close(edge_sam_loss(student, large), edge_sam_loss(resized, large))
    with pytest.raises(ValueError, match="with the prompts and candidates of the teacher"):
        edge_sam_loss(student, teacher[:, :2])


def test_segment_anything_uses_the_best_candidate_and_all_scores() -> None:
    masks, scores = draw(3, 2, 3, 4, 4), draw(3, 2, 3, seed=1).sigmoid()
    label = (draw(3, 4, 4, seed=2) > 0).long()
    label[0, 0], label[2] = -100, -100
    expected = []
    for n in range(2):
        valid = label[n] != -100
        target = (label[n] == 1)[valid].double()
        total = 0.0
        for p in range(2):
            values, errors = [], []
            for m in range(3):
                logits = masks[n, p, m][valid]
                probability = logits.sigmoid()
                right = torch.where(target == 1, probability, 1 - probability)
                weight = torch.where(target == 1, 0.25, 0.75)
                focal = float((weight * (1 - right) ** 2 * -right.log()).mean())
                values.append(20 * focal + dice(logits, target))
                shared = ((logits > 0) & (target == 1)).sum()
                union = ((logits > 0) | (target == 1)).sum()
                errors.append(float((scores[n, p, m] - shared / union) ** 2))
            total += min(values) + sum(errors) / 3
        expected.append(total / 2)
    loss = segment_anything_loss(masks, scores, label, reduction="none")
    torch.testing.assert_close(loss, torch.tensor([*expected, 0.0], dtype=torch.float64))
    with pytest.raises(ValueError, match="segment_anything_loss: the shapes do not fit"):
        segment_anything_loss(masks, scores[:, :1], label)


def test_mobile_sam_compares_on_the_grid_of_the_teacher() -> None:
    student, teacher = draw(2, 3, 2, 2), draw(2, 3, 4, 4, seed=1)
    resized = F.interpolate(student, (4, 4), mode="bilinear")
    expected = (resized - teacher).square().flatten(1).mean(1)
    torch.testing.assert_close(mobile_sam_loss(student, teacher, "none"), expected)
    with pytest.raises(ValueError, match=r"maps .* of one width"):
        mobile_sam_loss(student, teacher[:, :2])


def test_points_and_boxes_of_masks() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(40, 5, 7, generator=generator) > 0.8
    mask[0] = False
    uniform = torch.rand(40, generator=generator)
    point, has_pixel = sample_points(mask, uniform)
    assert not has_pixel[0]
    for n in range(1, 40):
        rows, columns = mask[n].nonzero().T
        rank = int(float(uniform[n]) * len(rows))
        assert point[n].tolist() == [int(columns[rank]), int(rows[rank])]
        box = [int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())]
        assert box_of(mask[n : n + 1])[0].tolist() == box
    everything = torch.ones(1, 5, 7, dtype=torch.bool)
    assert sample_points(everything, torch.tensor([1 - 2**-24]))[0].tolist() == [[6, 4]]
    empty = torch.zeros(2, 2, dtype=torch.bool)
    assert mask_iou(empty, empty, ~empty) == 1
