from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from instil.core import Objective
from instil.objectives.features.mgd import MGD, MaskedFeatureGenerator, mgd_loss

Features = Callable[..., dict[str, tuple[Tensor, ...]]]


def test_the_generator_receives_the_masked_features() -> None:
    student, teacher = torch.randn(2, 3, 2, 2).double(), torch.randn(2, 3, 2, 2).double()
    mask = (torch.rand(2, 1, 2, 2) > 0.5).double()
    ours = mgd_loss(student, teacher, mask, lambda masked: 2 * masked, "none")
    for n in range(2):
        total = 0.0
        for c, h, w in itertools.product(range(3), range(2), range(2)):
            generated = 2 * float(student[n, c, h, w]) * float(mask[n, 0, h, w])
            total += (generated - float(teacher[n, c, h, w])) ** 2
        assert float(ours[n]) == pytest.approx(total / 12)


def test_the_generator_is_two_convolutions() -> None:
    generator = MaskedFeatureGenerator(torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 2, 2)).double()
    stage = torch.randn(1, 3, 2, 2).double()
    first, second = generator.generation[0], generator.generation[2]
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.Conv2d)
    hidden = nn.functional.conv2d(stage, first.weight, first.bias, padding=1).clamp_min(0)
    assert torch.allclose(
        generator(stage), nn.functional.conv2d(hidden, second.weight, second.bias, padding=1)
    )
    assert str(generator.align) == "4x4 -> 2x2, conv 1x1"


@pytest.mark.parametrize(("mask", "ratio"), [("channel", 0.3), ("position", 0.7)])
def test_the_mask_hides_whole_channels_or_positions_at_its_rate(mask: str, ratio: float) -> None:
    objective = MGD(mask, ratio)  # type: ignore[arg-type]
    stage = torch.zeros(200, 30, 5, 6)
    batch = {"index": torch.arange(200), "step": torch.tensor(2)}
    drawn = objective._random_mask(stage, batch, 0)
    assert drawn.shape == ((200, 30, 1, 1) if mask == "channel" else (200, 1, 5, 6))
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert 1 - float(drawn.mean()) == pytest.approx(ratio, abs=0.02)
    assert torch.equal(
        drawn[50:60],
        objective._random_mask(stage[50:60], {**batch, "index": torch.arange(50, 60)}, 0),
    )
    assert not torch.equal(
        drawn, objective._random_mask(stage, {**batch, "step": torch.tensor(3)}, 0)
    )
    assert not torch.equal(drawn, objective._random_mask(stage, batch, 1))


def test_without_a_mask_the_loss_is_that_of_the_generator(features: Features) -> None:
    student, teacher = features("cnn"), features("cnn", seed=1)
    objective = MGD(ratio=0.0, pairs=[[1, 1]])
    objective.build(student, teacher)
    expected = (
        (objective.adapters[0](student["features"][1]) - teacher["features"][1])
        .square()
        .flatten(1)
        .mean(1)
    )
    assert torch.allclose(objective(student, teacher, {"index": torch.arange(4)}), expected)


def test_invalid_inputs_are_errors(features: Features) -> None:
    with pytest.raises(ValueError, match=r"got 'channels'\. Did you mean channel"):
        MGD("channels")  # type: ignore[arg-type]
    objective = MGD()
    objective.build(features("cnn"), features("cnn"))
    with pytest.raises(ValueError, match="per-sample randomness needs 'index'"):
        objective(features("cnn"), features("cnn"), {})


@pytest.mark.parametrize("mask", ["channel", "position"])
def test_any_pair_of_networks(check_pair: Callable[[Objective], None], mask: str) -> None:
    check_pair(MGD(mask))  # type: ignore[arg-type]


def test_compiles_without_graph_breaks() -> None:
    student, mask, generate = torch.randn(2, 3, 4, 4), torch.ones(2, 3, 1, 1), nn.Conv2d(3, 3, 1)
    compiled = torch.compile(mgd_loss, fullgraph=True, backend="eager")
    assert torch.allclose(
        compiled(student, student, mask, generate), mgd_loss(student, student, mask, generate)
    )
