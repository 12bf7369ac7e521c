"""Masked video distillation: formula, hidden shares and several teachers."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from instil.core import Outputs
from instil.functional.hidden_squares import hidden_share
from instil.objectives.features.mvd import MVD, mvd_loss


def clips(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).double()


def test_is_the_smooth_l1_distance_to_normalised_features_of_hidden_positions() -> None:
    predicted, teacher = clips(2, 3, 2, 2, 2), 3 * clips(2, 3, 2, 2, 2) + 1
    hidden = clips(2, 2, 2, 2).abs().clamp(max=1)
    ours = mvd_loss(predicted, teacher, hidden, "none")
    for n in range(2):
        total = weights = 0.0
        for position in itertools.product(range(2), repeat=3):
            values = [float(teacher[(n, c, *position)]) for c in range(3)]
            mean = sum(values) / 3
            variance = sum((value - mean) ** 2 for value in values) / 3
            distance = 0.0
            for c, value in enumerate(values):
                target = (value - mean) / math.sqrt(variance + 1e-5)
                error = abs(float(predicted[(n, c, *position)]) - target)
                distance += error**2 / 2 if error < 1 else error - 0.5
            weight = float(hidden[(n, *position)])
            total += weight * distance / 3
            weights += weight
        assert float(ours[n]) == pytest.approx(total / weights)


def test_visible_positions_have_no_loss() -> None:
    predicted, teacher = clips(1, 4, 3, 3), clips(1, 4, 3, 3)
    hidden = torch.zeros(1, 3, 3)
    hidden[0, 1, 2] = 1
    changed = predicted.clone()
    changed[..., 0, :] += 5
    assert torch.equal(mvd_loss(predicted, teacher, hidden), mvd_loss(changed, teacher, hidden))
    assert float(mvd_loss(predicted, teacher, torch.zeros(1, 3, 3))) == 0


def test_the_scale_of_the_teacher_does_not_matter() -> None:
    predicted, teacher, hidden = clips(2, 8, 2, 2), 10 * clips(2, 8, 2, 2), torch.ones(2, 2, 2)
    value = mvd_loss(predicted, teacher, hidden)
    scaled = mvd_loss(predicted, 7 * teacher, hidden)
    torch.testing.assert_close(value, scaled, rtol=1e-4, atol=0)


def test_the_hidden_share_of_a_position_is_the_mean_of_its_pixels() -> None:
    mask = torch.tensor([[[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]])
    assert torch.equal(hidden_share(mask, torch.zeros(1, 5, 1, 2)), torch.tensor([[[0.75, 0.0]]]))
    video = hidden_share(mask, torch.zeros(1, 5, 3, 1, 2))
    assert torch.equal(video, torch.tensor([[[[0.75, 0.0]]] * 3]))


def sides() -> tuple[Outputs, Outputs]:
    """Student, and a teacher of videos and one of images."""
    student = {"features": (clips(2, 6, 3, 4, 4),), "tube_mask": torch.ones(2, 8, 8)}
    members = ({"features": (clips(2, 5, 3, 4, 4),)}, {"features": (clips(2, 7, 2, 2),)})
    return student, {"members": members}


def test_the_loss_is_the_sum_over_the_teachers() -> None:
    student, teacher = sides()
    objective = MVD()
    objective.build(student, teacher)
    batch = {"index": torch.arange(2)}
    both = objective(student, teacher, batch)
    decoders = list(objective.decoders)
    expected = torch.zeros(2).double()
    for decoder, member in zip(decoders, teacher["members"], strict=True):
        objective.decoders = torch.nn.ModuleList([decoder])
        expected += objective(student, member, batch)
    torch.testing.assert_close(both, expected)
    assert objective.plan == [
        "student 0 (6x3x4x4) <- teacher 0 (5x3x4x4): decoder of hidden tubes",
        "student 0 (6x3x4x4) <- teacher 0 (7x2x2): decoder of hidden tubes",
    ]


def test_wrong_teachers_are_refused() -> None:
    student, _ = sides()
    with pytest.raises(ValueError, match="its features have one position"):
        MVD().build(student, {"features": (clips(2, 6, 3, 1, 1),)})
    with pytest.raises(ValueError, match="teacher 0 has no features"):
        MVD().build(student, {"members": ({"logits": clips(2, 3)},)})


def test_without_the_scheme_the_error_names_it() -> None:
    _, teacher = sides()
    objective = MVD()
    with pytest.raises(ValueError, match=r"needs tube_mask .* Use scheme: masked_video"):
        objective.resolve({"features"}, teacher)
