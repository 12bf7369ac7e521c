"""Objectives of a recipe."""

from __future__ import annotations

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
