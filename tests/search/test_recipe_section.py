"""Section ``search`` of a recipe, and the options of the command line that replace its keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from instil.cli import app
from instil.recipe import RecipeError, build, load, to_yaml
from instil.search.options import settings_from
from instil.search.search import start
from tests.search.recipes import RECIPE, recipe, silent

TEACHERS: dict[str, Any] = {"small": {"options": {"width": 8}}, "pair": ["num_replicas=2"]}


def section(**keys: Any) -> Any:
    """Section of a valid recipe."""
    return recipe(search=keys).search


def test_a_recipe_without_the_section_searches_over_methods() -> None:
    settings = settings_from(None)
    assert settings.over == ("methods",)
    assert settings.teachers is None
    assert settings.keep == 0.99


def test_the_section_supplies_the_settings() -> None:
    own = section(over=["teachers"], teachers=TEACHERS)
    settings = settings_from(own)
    assert settings.over == ("teachers",)
    assert settings.teachers == TEACHERS
    changes = settings_from(section(teachers=["options.width=8"]), over="teachers")
    assert changes.teachers == {"width_8": ["options.width=8"]}
    students = section(over=["students"], students=["networks"], limits={"size": "4MB"}, keep="98%")
    settings = settings_from(students)
    assert settings.students == ("networks",)
    assert settings.limits == {"size": 4e6}
    assert settings.keep == 0.98


def test_the_command_line_replaces_keys_of_the_section() -> None:
    own = section(over=["students"], limits={"size": "4MB"}, keep="98%", candidates=["dkd"])
    settings = settings_from(own, limits=["latency=5ms"], keep="90%")
    assert settings.limits == {"latency": 5.0}
    assert settings.keep == 0.9
    # Keys of subjects that are not searched are not used.
    methods = settings_from(own, over="methods")
    assert methods.candidates == ("dkd",)
    assert methods.limits == {}
    assert settings_from(own, over="methods", candidates="rkd").candidates == ("rkd",)


def test_the_number_of_refinements_is_set() -> None:
    assert settings_from(None, over="students").num_refinements == 3
    assert settings_from(None, over="students", refinements=5).num_refinements == 5
    # None are trained, as in a search over named models.
    none = settings_from(None, over="students", students="timm:resnet18", refinements=0)
    assert none.num_refinements == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["search", "digits", "--refinements", "3"], "for students only. Expected --over students"),
        (
            ["compress", "digits", "--students", "timm:resnet18", "--refinements", "1"],
            "this search trains no further sizes",
        ),
    ],
)
def test_refinements_of_other_searches_are_an_error(words: list[str], message: str) -> None:
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, ValueError)
    assert str(result.exception).startswith(f"--refinements: {message}")


@pytest.mark.slow
def test_a_compression_without_refinements_has_the_sizes_of_the_candidates(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    changes = ["train.epochs=null", "train.steps=60", "device=cpu"]
    words = ["compress", "kd", *changes, "--students", "networks", "--keep", "90%", "--seeds", "1"]
    counts = []
    for count in ("0", "1"):
        folder = tmp_path / count
        result = CliRunner().invoke(app, [*words, "--refinements", count, "--out", str(folder)])
        assert result.exit_code == 0, result.output
        planned = json.loads((folder / "study.json").read_text())["arms"]
        trained = json.loads((folder / "search.json").read_text())["arms"]
        counts.append(len(trained) - len(planned))
    assert counts == [0, 1]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"over": ["teacher"]}, r"search\.over\.0: .*'teacher'"),
        ({"teacher": {}}, r"search\.teacher: .*teachers"),
        ({"teachers": ["small"]}, r"search\.teachers: 'small' is not a teacher"),
        ({"teachers": {}}, r"search\.teachers: no teachers"),
        ({"teachers": {"odd": 3}}, r"search\.teachers"),
        ({"candidates": []}, r"search\.candidates: "),
    ],
)
def test_wrong_sections_are_refused_when_the_recipe_is_read(
    keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        section(**keys)


def test_wrong_values_name_their_path(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"search\.limits: unknown limit 'speed'"):
        settings_from(section(over=["students"], limits={"speed": "5ms"}))
    with pytest.raises(ValueError, match=r"search\.keep: '200%' is not a share"):
        settings_from(section(over=["students"], keep="200%"))
    own = recipe(search={"teachers": {"odd": {"model": "networks:cnn", "colour": "red"}}})
    settings = settings_from(own.search, over="teachers")
    with pytest.raises(RecipeError, match=r"search\.teachers\.odd: .*colour"):
        start(own, settings, tmp_path / "none", silent())


def test_the_command_needs_no_list_of_teachers(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(to_yaml(build(RECIPE | {"search": {"teachers": TEACHERS}})))
    out = tmp_path / "search"
    words = ["search", str(path), "--over", "teachers", "--seeds", "1", "--out", str(out)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    outcome = json.loads((out / "search.json").read_text())
    assert set(outcome["teachers"]["scores"]) == {"recipe", "small", "pair"}
    # The winner is trained by `instil run`; the candidates stay in the recipe of the search.
    assert load(out / "best.yaml").search is None
    assert load(out).search is not None
