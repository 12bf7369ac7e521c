"""Objectives of a recipe."""

from __future__ import annotations

from typing import Any

import pytest

from instil import recipe as recipes
from instil.recipe import label_objective_configs


def test_a_missing_label_objective_equals_one_without_options() -> None:
    """The name of a cached teacher depends on it: stages with and without it share a teacher."""
    absent, present = (
        label_objective_configs(
            recipes.build({"data": "digits", "student": "cnn", "objectives": objectives}),
            "cross_entropy",
        )
        for objectives in ({"kd": {}}, {"kd": {}, "cross_entropy": {}})
    )
    assert absent["cross_entropy"].model_dump() == present["cross_entropy"].model_dump()


@pytest.mark.parametrize(
    ("objectives", "expected"),
    [
        ({"cross_entropy": {"weight": 0.1}, "kd": {"weight": 0.9}}, {"cross_entropy": 1.0}),
        ({"cross_entropy": {"weight": 0}, "kd": {}}, {"cross_entropy": 1.0}),
        (
            {"cross_entropy": {"weight": {"start": 0.5, "end": 0, "until": 0.5}}, "kd": {}},
            {"cross_entropy": 1.0},
        ),
        (
            {
                "hard": {"type": "cross_entropy", "weight": 0.2},
                "balanced": {"type": "cross_entropy", "weight": 0.4, "class_weights": "balanced"},
            },
            {"hard": 0.5, "balanced": 1.0},
        ),
    ],
)
def test_labels_have_their_full_weight_where_there_is_no_teacher(
    objectives: dict[str, Any], expected: dict[str, float]
) -> None:
    """With SGD, a tenth of the loss would be a tenth of the learning rate for the baselines."""
    built = recipes.build({"data": "digits", "student": "cnn", "objectives": objectives})
    configs = label_objective_configs(built, "cross_entropy")
    assert {name: config.weight for name, config in configs.items()} == expected
    if "balanced" in expected:
        assert configs["balanced"].options["class_weights"] == "balanced"
