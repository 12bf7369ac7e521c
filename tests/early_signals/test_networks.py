"""Capacity gap, similarity of levels and linear probe."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from instil.core import Net
from instil.early_signals.capacity import operation_ratio, parameter_ratio
from instil.early_signals.levels import last_level, level_similarities
from instil.early_signals.probe import linear_probe_accuracy


def perceptron(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(8, width, bias=False), nn.Linear(width, 4, bias=False))


def test_the_capacity_gap_of_two_perceptrons() -> None:
    student, teacher = Net(perceptron(3)), Net(perceptron(12))
    assert parameter_ratio(student, teacher) == 4
    assert operation_ratio(student, teacher, {"x": torch.ones(2, 8)}) == 4
    assert parameter_ratio(student, nn.Identity()) is None


def test_the_operations_of_a_convolution() -> None:
    student = Net(nn.Conv2d(3, 2, 3, bias=False))
    teacher = Net(nn.Conv2d(3, 10, 3, bias=False))
    assert operation_ratio(student, teacher, {"x": torch.ones(1, 3, 8, 8)}) == 5


def test_levels_are_paired_by_depth() -> None:
    generator = torch.Generator().manual_seed(0)
    levels = [torch.randn(32, 6, 4, 4, generator=generator) for _ in range(4)]
    teacher = {"features": tuple(levels)}
    student = {"features": (2 * levels[1].flip(1), levels[3] + 1)}
    assert level_similarities([student], [teacher]) == pytest.approx([1, 1], abs=1e-4)
    shuffled = {"features": (levels[0], levels[2])}
    assert max(level_similarities([shuffled], [teacher])) < 0.5


@pytest.mark.parametrize("num_levels", [4, 5])
def test_early_levels_are_compared_with_the_first_of_few(num_levels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    first, last = (torch.randn(32, 6, 4, 4, generator=generator) for _ in range(2))
    others = (torch.randn(32, 6, 4, 4, generator=generator) for _ in range(num_levels - 2))
    student = {"features": (first, *others, last)}
    similarities = level_similarities([student], [{"features": (first, last)}])
    assert [similarities[0], similarities[-1]] == pytest.approx([1, 1], abs=1e-4)


def test_a_role_of_both_networks_is_compared() -> None:
    hidden = torch.randn(16, 5, 8, generator=torch.Generator().manual_seed(0))
    student = {"hidden_states": (hidden,)}
    teacher = {"features": (hidden.transpose(1, 2),), "hidden_states": (hidden, hidden)}
    assert level_similarities([student], [teacher]) == pytest.approx([1])
    assert level_similarities([{"logits": hidden}], [teacher]) == []
    frames = {"hidden_states": (hidden.repeat(2, 1, 1),)}
    assert level_similarities([frames], [teacher]) == []
    level = last_level([student, student])
    assert level is not None
    torch.testing.assert_close(level, hidden.mean(1).repeat(2, 1))


def test_a_linear_probe_separates_linear_classes() -> None:
    points = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    label = (points[:, 0] > 0.2).long()
    accuracy = linear_probe_accuracy(points[:50], label[:50], points[50:], label[50:])
    assert accuracy > 0.85
    assert linear_probe_accuracy(points[:50], label[:50], points[50:], 1 - label[50:]) < 0.15


def test_levels_of_tokens_are_averaged_over_the_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(8, length, 6, generator=generator) for length in (5, 7)]
    level = last_level([{"features": (tokens,)} for tokens in batches])
    assert level is not None
    torch.testing.assert_close(level, torch.cat([tokens.mean(1) for tokens in batches]))
