"""Keys with a new name: an old key is refused, and the message names the new one."""

from __future__ import annotations

from typing import Any

import pytest

from instil.recipe import build
from instil.recipe.errors import RecipeError

RECIPE: dict[str, Any] = {
    "data": {"name": "digits"},
    "teacher": "cnn",
    "student": "mlp",
    "objectives": {"kd": None},
}


def test_an_old_key_is_refused_with_the_new_name() -> None:
    with pytest.raises(RecipeError) as caught:
        build(RECIPE | {"data": {"name": "digits", "labels": 100}})
    assert str(caught.value) == ("data.labels: unknown key. Its new name is data.num_labeled.")


def test_an_old_key_in_a_stage_is_refused_once_with_its_place() -> None:
    with pytest.raises(RecipeError) as caught:
        build(RECIPE | {"stages": [{}, {"data": {"labels": 100}}]})
    assert str(caught.value) == (
        "stages.1.data.labels: unknown key. Its new name is stages.1.data.num_labeled."
    )


def test_an_old_option_of_an_objective_is_refused_with_the_new_name() -> None:
    with pytest.raises(RecipeError) as caught:
        build(RECIPE | {"objectives": {"tokens": {"type": "phi_s", "studies": 64}}})
    assert str(caught.value) == (
        "objectives.tokens.studies: unknown option. "
        "Its new name is objectives.tokens.calibration_samples."
    )


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"together": "routed"}, "together: unknown key. Its new name is ensemble."),
        (
            {"data": {"name": "digits", "images": "noise"}},
            "data.images: unknown key. Its new name is data.surrogate.",
        ),
        (
            {"teacher": {"model": "cnn", "copies": 2}},
            "teacher.copies: unknown key. Its new name is teacher.num_replicas.",
        ),
        (
            {"teacher": [{"model": "cnn"}, {"model": "cnn", "plain": True}]},
            "teacher.1.plain: unknown key. Its new name is teacher.1.precompute.",
        ),
        (
            {"teacher": {"model": "cnn", "progress": 0.5}},
            "teacher.progress: unknown key. Its new name is teacher.checkpoint_at.",
        ),
        (
            {"student": {"model": "cnn", "trained": True}},
            "student.trained: unknown key. Its new name is student.is_trained.",
        ),
    ],
)
def test_each_old_key_names_its_new_one(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build(RECIPE | sections)
    assert message in str(caught.value).splitlines()


def test_the_weight_of_the_features_in_camkd_has_a_new_name() -> None:
    with pytest.raises(RecipeError) as caught:
        build(RECIPE | {"objectives": {"camkd": {"stage": 1}}})
    assert str(caught.value) == (
        "objectives.camkd.stage: unknown option. Its new name is objectives.camkd.feature_weight."
    )
