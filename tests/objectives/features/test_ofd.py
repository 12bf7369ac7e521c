from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from instil.core import Objective
from instil.objectives.features.ofd import OFD, batch_norm_margin, ofd_loss

Features = Callable[..., dict[str, tuple[Tensor, ...]]]


def test_is_the_partial_distance_from_the_margin_relu() -> None:
    student, teacher = torch.randn(2, 3, 2, 2).double() * 2, torch.randn(2, 3, 2, 2).double()
    margin = torch.tensor([-0.1, -0.5, -2.0], dtype=torch.float64)
    for n, ours in enumerate(ofd_loss(student, teacher, margin, "none")):
        total = 0.0
        for c in range(3):
            for s, t in zip(
                student[n, c].flatten().tolist(), teacher[n, c].flatten().tolist(), strict=True
            ):
                target = max(t, float(margin[c]))
                skipped = s <= target <= 0
                total += 0.0 if skipped else (s - target) ** 2
        assert float(ours) == pytest.approx(total / 12)


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (-1.5, 0.7), (2.0, -1.0)])
def test_the_margin_of_a_normal_channel_is_the_mean_of_its_negative_part(
    mean: float, deviation: float
) -> None:
    normal = stats.norm(mean, abs(deviation))
    expected = integrate.quad(lambda x: x * normal.pdf(x), -20, 0)[0] / normal.cdf(0)
    assert float(
        batch_norm_margin(torch.tensor([deviation]).double(), torch.tensor([mean]).double())
    ) == pytest.approx(expected, rel=1e-6)


def test_a_channel_that_is_hardly_ever_negative_and_one_without_spread_have_a_margin_too() -> None:
    margins = batch_norm_margin(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([5.0, -2.0, 0.0]))
    assert margins.tolist() == [-3.0, -2.0, 0.0]


def test_margins_are_the_mean_negative_responses_of_the_dry_batch_and_then_of_all_steps(
    features: Features,
) -> None:
    student, teacher = features("cnn"), features("cnn", seed=1)
    objective = OFD(pairs=[[0, 0]])
    objective.build(student, teacher)

    def expected(*stages: Tensor) -> list[float]:
        values = torch.cat(stages).transpose(0, 1).flatten(1).numpy()
        return [float(np.mean(channel[channel < 0])) for channel in values]

    assert objective.get_buffer("margin_0").tolist() == pytest.approx(
        expected(teacher["features"][0]), rel=1e-5
    )
    later = [features("cnn", seed=seed) for seed in (2, 3)]
    for index, side in enumerate(later):
        batch = {"index": torch.arange(4), "valid": torch.tensor([True, True, True, index == 0])}
        objective.after_step(objective.state_updates(student, side, batch))
    levels = [later[0]["features"][0], later[1]["features"][0][:3]]
    assert objective.get_buffer("margin_0").tolist() == pytest.approx(expected(*levels), rel=1e-5)


def test_a_teacher_tapped_after_its_relu_has_margin_zero(features: Features) -> None:
    student, teacher = (
        features("cnn"),
        {"features": tuple(stage.relu() for stage in features("cnn", seed=1)["features"])},
    )
    objective = OFD()
    objective.build(student, teacher)
    objective.after_step(objective.state_updates(student, teacher, {"index": torch.arange(4)}))
    assert all(objective.get_buffer(f"margin_{index}").abs().sum() == 0 for index in range(3))
    assert torch.isfinite(objective(student, teacher, {})).all()


def test_different_shapes_are_an_error() -> None:
    with pytest.raises(ValueError, match="ofd_loss: the student's shape"):
        ofd_loss(torch.zeros(2, 3, 1, 1), torch.zeros(2, 3, 2, 2), torch.zeros(3))


def test_any_two_nets(check_pair: Callable[[Objective], None]) -> None:
    check_pair(OFD())


def test_compiles_whole() -> None:
    student, teacher, margin = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), -torch.rand(3)
    compiled = torch.compile(ofd_loss, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(student, teacher, margin), ofd_loss(student, teacher, margin))
