"""The registry consists of the folder, the entry points, and the imports of a recipe."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Lt
from torch import nn
from typing_extensions import Doc

import instil
from instil import catalogue
from instil.catalogue import plugins, signatures
from instil.cli import methods_table
from instil.core import Card, Objective, Positive, Schedule, Scheme, Teacher
from instil.objectives.logits.dkd import DKD, dkd_loss
from instil.recipe import options
from instil.schemes.self_distillation.ema import Ema as EmaScheme
from instil.teachers.ema import Ema as EmaTeacher

LOSSES = """
from instil.core import Card, Objective, Scheme


class GentleLoss(Objective):
    card = Card("Gentle")


class KDPlus(Objective):
    card = Card("KD and more")


class Slow(Scheme):
    card = Card("Slow")


class NoMethod:
    pass
"""


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the catalogue after each test."""
    monkeypatch.setattr(plugins, "imported", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    plugins.installed.cache_clear()
    yield
    plugins.installed.cache_clear()


def module(folder: Path, name: str, text: str) -> str:
    (folder / f"{name}.py").write_text(text)
    return name


# --- the folder


def test_a_file_with_a_card_is_a_method_and_nothing_else_is() -> None:
    names = set(catalogue.names("objective"))
    assert {"cross_entropy", "kd", "dkd", "fitnet", "crd"} <= names
    assert not names & {"adapters", "pairs", "logit_objective", "feature_objective", "__init__"}
    assert "classification" in catalogue.names("task")
    assert "scores" not in catalogue.names("task")


def test_find_gives_the_class() -> None:
    assert catalogue.find("objective", "dkd") is DKD


def test_a_name_may_stand_in_two_kinds() -> None:
    assert catalogue.find("scheme", "ema") is EmaScheme
    assert catalogue.find("teacher", "ema") is EmaTeacher


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("objective", "dkdd", "No objective named 'dkdd'. Did you mean dkd"),
        ("scheme", "frozen", "No scheme named 'frozen'; 'frozen' is a teacher"),
        ("scheme", "ps_kd", "No scheme named 'ps_kd'; 'ps_kd' is an objective"),
        (
            "objectiv",
            "kd",
            "No kind of method is named 'objectiv'. Expected one of objective, weighting, balance, "
            "scheme, teacher, task",
        ),
    ],
)
def test_an_unknown_name_is_answered_with_the_closest(kind: str, name: str, message: str) -> None:
    with pytest.raises(ValueError, match="named") as caught:
        catalogue.find(kind, name)
    assert str(caught.value).startswith(message)


def test_names_are_found_without_torch() -> None:
    code = (
        "import sys; from instil import catalogue; print(catalogue.names('objective')); "
        "print('torch' in sys.modules)"
    )
    names, torch_loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert "'kd'" in names
    assert torch_loaded == "False"


# --- descriptions


def test_a_description_is_plain_data() -> None:
    dkd = catalogue.describe("objective", "dkd")
    assert json.loads(json.dumps(dkd)) == dkd
    assert (dkd["name"], dkd["kind"], dkd["source"], dkd["couples"], dkd["labels"]) == (
        "dkd",
        "objective",
        "logits",
        False,
        ["single"],
    )
    assert dkd["paper"] == "https://arxiv.org/abs/2203.08679"
    assert dkd["needs"] == {"student": ["logits"], "teacher": ["logits"]}
    assert {o["name"]: (o["type"], o["default"]) for o in dkd["options"]}["temperature"] == (
        "float > 0",
        4.0,
    )
    assert [function["name"] for function in dkd["functions"]] == ["dkd_loss"]
    assert dkd["defined"] == "instil.objectives.logits.dkd.DKD"


def test_every_method_is_described_with_all_keys() -> None:
    keys = {
        "name",
        "kind",
        "source",
        "algorithms",
        "tasks",
        "couples",
        "options",
        "paper",
        "title",
        "venue",
        "year",
        "labels",
        "deviations",
    }
    described = catalogue.cards()
    assert {(one["kind"], one["name"]) for one in described} == {
        (kind, name) for kind in catalogue.kinds() for name in catalogue.names(kind)
    }
    for one in described:
        assert keys <= set(one)
        assert all(
            set(option) == {"name", "type", "default", "description"} for option in one["options"]
        )


class Documented(Objective):
    """An objective whose options are documented in their types."""

    def __init__(
        self,
        power: Annotated[Positive, Doc("exponent of the distance")] = 2.0,
        factor: Annotated[float, Ge(0), Lt(1), Doc("factor of the loss")] | Schedule = 0.5,
        shape: Annotated[Literal["round", "square"], Doc("form of the kernel")] = "round",
        sizes: list[int] | None = None,
        net: nn.Module | None = None,
    ) -> None:
        super().__init__()


class WithNets(Scheme):
    """Scheme with additional networks."""

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: dict[str, Objective],
        helper: nn.Module,
        depth: int = 1,
    ) -> None:
        super().__init__(student, teacher, objectives)


def test_options_and_their_documentation_are_read_from_the_signature() -> None:
    assert signatures.described(Documented) == [
        {
            "name": "power",
            "type": "float > 0",
            "default": 2.0,
            "description": "exponent of the distance",
        },
        {
            "name": "factor",
            "type": "float >= 0 and < 1",
            "default": 0.5,
            "description": "factor of the loss",
        },
        {
            "name": "shape",
            "type": "'round' | 'square'",
            "default": "round",
            "description": "form of the kernel",
        },
        {"name": "sizes", "type": "list[int] | null", "default": None, "description": ""},
    ]
    assert [(o["name"], o["type"]) for o in signatures.described(WithNets)] == [
        ("helper", "network"),
        ("depth", "int"),
    ]


def test_options_of_union_types_are_checked() -> None:
    assert options.check(Documented, {"factor": {"start": 0, "end": 0.5}, "sizes": [1]}) == {
        "factor": Schedule(0.0, 0.5),
        "sizes": [1],
    }
    with pytest.raises(
        ValueError, match=r"^here\.factor: a number less than 1 was expected, not 1$"
    ):
        options.check(Documented, {"factor": {"start": 0, "end": 1}}, "here")
    with pytest.raises(
        ValueError, match=r"^here\.shape: 'round' or 'square' was expected, not 'oval'$"
    ):
        options.check(Documented, {"shape": "oval"}, "here")


def test_options_of_a_plain_function() -> None:
    def source(path: str, copy: bool = False) -> None:
        """A name that pydantic's own models have, ``copy``, is an ordinary option."""

    assert options.check(source, {"path": "a", "copy": True}) == {"path": "a", "copy": True}
    with pytest.raises(
        ValueError,
        match=r"^data\.pth: unknown option\. my source has path, copy\. Did you mean path\?$",
    ) as caught:
        options.check(source, {"path": "a", "pth": "a"}, "data", "my source")
    assert "pydantic" not in str(caught.value)


# --- third parties


@pytest.mark.usefixtures("own_registry")
def test_a_module_that_a_recipe_imports_adds_its_methods(tmp_path: Path) -> None:
    catalogue.add([module(tmp_path, "losses_of_a_user", LOSSES)], tmp_path)
    assert catalogue.find("objective", "gentle_loss").__name__ == "GentleLoss"
    assert catalogue.find("objective", "kd_plus").__name__ == "KDPlus"
    assert "slow" in catalogue.names("scheme")
    assert (
        catalogue.describe("objective", "gentle_loss")["defined"] == "losses_of_a_user.GentleLoss"
    )


@pytest.mark.usefixtures("own_registry")
def test_the_function_of_a_user_is_described_where_it_can_be_imported(tmp_path: Path) -> None:
    function = "def gentle_loss(student):\n    return student\n"
    catalogue.add([module(tmp_path, "functions_of_a_user", LOSSES + function)], tmp_path)
    own = catalogue.describe("objective", "gentle_loss")["functions"]
    assert [entry["path"] for entry in own] == ["functions_of_a_user.gentle_loss"]
    of_package = catalogue.describe("objective", "dkd")["functions"]
    assert [entry["path"] for entry in of_package] == ["instil.dkd_loss"]


@pytest.mark.usefixtures("own_registry")
def test_two_recipes_may_have_modules_of_one_name(tmp_path: Path) -> None:
    for index in (1, 2):
        (tmp_path / str(index)).mkdir()
        text = (
            "from instil.core import Card, Objective\nclass Mine(Objective):\n    card = "
            f"Card('{index}')\n"
        )
        catalogue.add(
            [module(tmp_path / str(index), "losses_of_one_name", text)], tmp_path / str(index)
        )
        assert catalogue.find("objective", "mine").card.title == str(index)
    assert sys.path[0] != str(tmp_path / "2"), "a recipe's folder hides no installed package"


@pytest.mark.usefixtures("own_registry")
def test_a_third_partys_file_may_name_its_class(tmp_path: Path) -> None:
    text = (
        "from instil.core import Card, Objective\nclass FitBest(Objective):\n    card = "
        "Card('Fit')\n"
    )
    catalogue.add([module(tmp_path, "fitbest", text)], tmp_path)
    assert "fitbest" in catalogue.names("objective")


@pytest.mark.usefixtures("own_registry")
def test_imports_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=f"imports: no module 'missing_losses' in {tmp_path} or among"
    ):
        catalogue.add(["missing_losses"], tmp_path)
    with pytest.raises(
        ValueError,
        match=(
            "imports: 'empty_losses' defines no objective, weighting, balance, scheme, teacher, "
            "task, baseline or metric with a card, no model source, and no function"
        ),
    ):
        catalogue.add([module(tmp_path, "empty_losses", "")], tmp_path)
    clash = (
        "from instil.core import Card, Objective\nclass KD(Objective):\n    card = Card('Mine')\n"
    )
    with pytest.raises(
        ValueError,
        match=(
            "taken_losses defines the objective 'kd', which is one of the package's own; rename "
            "the class"
        ),
    ):
        catalogue.add([module(tmp_path, "taken_losses", clash)], tmp_path)
    with pytest.raises(ModuleNotFoundError, match="what_a_user_forgot"):
        catalogue.add([module(tmp_path, "broken_losses", "import what_a_user_forgot")], tmp_path)


@pytest.mark.usefixtures("own_registry")
def test_entry_points_add_methods_and_a_broken_one_only_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    module(tmp_path, "installed_losses", LOSSES)
    entries = [
        EntryPoint("soft", "installed_losses:GentleLoss", plugins.GROUP),
        EntryPoint("all", "installed_losses", plugins.GROUP),
        EntryPoint("gone", "not_installed_losses", plugins.GROUP),
    ]
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: entries if group == plugins.GROUP else []
    )
    with pytest.warns(
        UserWarning, match=r"entry point 'gone' \(not_installed_losses\) were left out"
    ):
        assert catalogue.find("objective", "soft").__name__ == "GentleLoss"
    assert {"soft", "gentle_loss", "kd_plus"} <= set(catalogue.names("objective"))
    assert catalogue.find("scheme", "slow").__name__ == "Slow"


# --- public names


def test_public_names_are_found_by_name() -> None:
    assert instil.dkd_loss is dkd_loss
    assert instil.DKD is DKD
    assert instil.Card is Card
    assert instil.Ema is EmaScheme
    assert instil.teachers.Ema is EmaTeacher
    assert len(catalogue.losses()) >= len(catalogue.files("objective"))
    for name in catalogue.losses():
        assert inspect.isfunction(getattr(instil, name))
    assert "kd_loss" in dir(instil)


def test_an_unknown_public_name_is_answered_with_the_closest() -> None:
    with pytest.raises(
        AttributeError,
        match=r"module 'instil' has no attribute 'dkdd_loss'\. Did you mean dkd_loss",
    ):
        _ = instil.dkdd_loss
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = instil.teachers.Nothing
    assert not hasattr(instil, "__wrapped__")


def test_no_public_name_is_hidden_by_a_module_of_that_name() -> None:
    files = {path.stem for path in Path(instil.__file__).parent.iterdir()}
    assert set(instil.__all__) & files == set()


# --- the table


def test_one_name_selects_it_in_every_kind() -> None:
    assert [one["kind"] for one in methods_table.select("ema")] == ["scheme", "teacher"]
    assert [one["kind"] for one in methods_table.select("ema", "teacher")] == ["teacher"]
    with pytest.raises(ValueError, match=r"No method named 'ofline'\. Did you mean offline"):
        methods_table.select("ofline")


def test_the_example_is_a_line_of_a_recipe() -> None:
    assert (
        methods_table.example(catalogue.describe("objective", "dkd"))
        == "objectives: {dkd: {alpha: 1.0, beta: 8.0, temperature: 4.0}}"
    )
    assert (
        methods_table.example(catalogue.describe("scheme", "offline")) == "scheme: {type: offline}"
    )
