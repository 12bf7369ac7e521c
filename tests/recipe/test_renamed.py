"""Keys and values with a new name: an old one is an error that names the new one."""

from __future__ import annotations

from typing import Any

import pytest

from instil.recipe import build
from instil.recipe.errors import RecipeError
from instil.recipe.renamed import renamed_keys

RECIPE: dict[str, Any] = {
    "data": {"name": "digits"},
    "teacher": "cnn",
    "student": "mlp",
    "objectives": {"kd": None},
}
OLD_CONTEXT = "beside"


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


def test_an_old_name_of_an_objective_is_refused_with_the_new_name() -> None:
    message = r"objectives.rrd: unknown objective. Its new name is relational_representation."
    with pytest.raises(RecipeError) as caught:
        build(RECIPE | {"objectives": {"rrd": None}})
    assert str(caught.value) == message
    renamed = {"mine": {"type": "rrd"}}
    assert list(renamed_keys(RECIPE | {"objectives": renamed})) == [
        message.replace("objectives.rrd", "objectives.mine")
    ]


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


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (
            {"type": "on_policy", "temperature": 0.7},
            "scheme.temperature: unknown option. Its new name is scheme.sampling.temperature.",
        ),
        (
            {"type": "minillm", "end": 3},
            "scheme.end: unknown option. Its new name is scheme.sampling.eos_token_id.",
        ),
        (
            {"type": "dfad", "apart": "l1"},
            "scheme.apart: unknown option. Its new name is scheme.distance.",
        ),
    ],
)
def test_an_old_option_of_a_scheme_is_refused(scheme: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build(RECIPE | {"scheme": scheme})
    assert message in str(caught.value).splitlines()


def test_old_options_in_stages_and_of_the_teachers_scheme_are_refused() -> None:
    stage = {"scheme": {"max_new_tokens": 8}}
    recipe = RECIPE | {"scheme": {"type": "on_policy"}, "stages": [stage]}
    assert list(renamed_keys(recipe)) == [
        "stages.0.scheme.max_new_tokens: unknown option. "
        "Its new name is stages.0.scheme.sampling.max_new_tokens."
    ]
    teacher = {"model": "cnn", "scheme": {"type": "ffl", "branches": 3}}
    assert list(renamed_keys(RECIPE | {"teacher": teacher})) == [
        "teacher.scheme.branches: unknown option. Its new name is teacher.scheme.num_branches."
    ]


def test_a_scheme_of_another_package_may_have_an_option_with_an_old_name() -> None:
    scheme = {"type": "scheme_of_a_user", "apart": 1.0, "temperature": 2.0, "end": 3}
    assert list(renamed_keys(RECIPE | {"scheme": scheme})) == []


def test_an_old_value_is_refused_with_the_new_one() -> None:
    data = {"name": "text", "context": OLD_CONTEXT}
    with pytest.raises(RecipeError) as caught:
        build(RECIPE | {"task": "language", "data": data})
    assert str(caught.value) == (
        f"data.context: unknown value {OLD_CONTEXT}. Its new name is separate."
    )


def test_old_values_in_stages_and_of_the_teachers_data_are_refused() -> None:
    recipe = RECIPE | {
        "data": {"name": "sorting"},
        "teacher": [{"model": "cnn", "data": {"context": OLD_CONTEXT}}],
        "stages": [{"data": {"context": OLD_CONTEXT}}],
    }
    assert list(renamed_keys(recipe)) == [
        f"teacher.0.data.context: unknown value {OLD_CONTEXT}. Its new name is separate.",
        f"stages.0.data.context: unknown value {OLD_CONTEXT}. Its new name is separate.",
    ]


def test_a_source_of_a_user_may_have_a_value_with_an_old_name() -> None:
    data = {"name": "my_data:build", "context": OLD_CONTEXT}
    assert list(renamed_keys(RECIPE | {"data": data})) == []
