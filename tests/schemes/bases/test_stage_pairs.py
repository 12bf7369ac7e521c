"""Stage pairs, at which samples change from one network to the other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from instil.core import Net
from instil.functional.pooling import global_average_pool
from instil.modules.eval_mode import eval_mode
from instil.modules.stage_adapter import StageAdapter
from instil.schemes.bases.stage_pairs import resolve_stage_pairs, stage_paths


def test_auto_pairs_all_stages_and_a_list_selects_some() -> None:
    assert resolve_stage_pairs("auto", 3, 3) == [(0, 0), (1, 1), (2, 2)]
    assert resolve_stage_pairs([[0, 1], [2, 3]], 3, 4) == [(0, 1), (2, 3)]


@pytest.mark.parametrize(
    "spots", [[], [[0]], [[0, 3]], [[-1, 0]], [[1, 0], [0, 1]], [[0, 1], [1, 1]]]
)
def test_spots_that_do_not_fit(spots: Any) -> None:
    with pytest.raises(
        ValueError,
        match=(
            r"Expected a list of \[student stage, teacher stage\] of 2 and 3 stages, from shallow "
            r"to deep"
        ),
    ):
        resolve_stage_pairs(spots, 2, 3)


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 6, 6), (5, 3, 3)),
        ((5, 3, 3), (2, 6, 6)),
        ((3, 4, 4), (3, 4, 4)),
        ((7, 3), (7, 5)),
        ((3,), (5,)),
    ],
)
def test_a_bridge_gives_the_other_nets_shape(
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    source, target = (torch.randn(4, *shape) for shape in shapes)
    assert StageAdapter(source, target)(source).shape == target.shape
    assert global_average_pool(target).shape == (
        4,
        target.shape[-1] if target.ndim < 4 else target.shape[1],
    )


@pytest.mark.parametrize("shapes", [((2, 6, 6), (7, 3)), ((7, 3), (5, 3))])
def test_stages_without_a_bridge(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="no adapter fits the shapes of two stages"):
        StageAdapter(*(torch.zeros(4, *shape) for shape in shapes))


def test_stages_are_taps_on_outputs() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    assert stage_paths(Net(model, taps={"features": ["0", "1"]}), "student") == ["0", "1"]
    assert stage_paths(Net(model, taps={"features": "0"}), "student") == ["0"]
    for taps in ({"features": ["0", "1:in"]}, {"features": ["0[*]"]}, {}):
        with pytest.raises(
            ValueError, match=r"Expected paths of modules in teacher\.taps\.features, got"
        ):
            stage_paths(Net(model, taps=taps), "teacher")  # type: ignore[arg-type]


def test_modes_are_as_they_were_afterwards() -> None:
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval())
    with eval_mode(model):
        assert not any(part.training for part in model.modules())
    assert [part.training for part in model] == [True, False]
