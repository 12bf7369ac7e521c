"""Searches over teachers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from instil.experiment.experiment import Experiment
from instil.recipe import RecipeError, load
from instil.search.outcome import _recipe_of_teacher
from instil.search.search import Settings, start
from instil.search.state import State, read_state
from instil.search.study import Study
from instil.search.teacher_arms import parse_teachers, teacher_candidates
from instil.search.teacher_outcome import correlation
from instil.search.teachers import _trained_section, mean_agreement
from instil.search.trainer import Trainer
from tests.search.recipes import continue_search, recipe, silent, without_times

TEACHERS: dict[str, Any] = {
    "small": {"options": {"width": 8}},
    "pair": {"num_replicas": 2},
    "assisted": {"assistant": {"options": {"width": 24}}},
    "broken": {"model": "cnn", "options": {"norm": "layer"}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished search over teachers."""
    path = tmp_path_factory.mktemp("teachers") / "first"
    settings = Settings(over=("teachers",), teachers=TEACHERS, num_seeds=2)
    start(recipe(), settings, path, silent())
    return path


def assistant_of(folder: Path) -> Path:
    """File of the only assistant of a search."""
    (path,) = (folder / "teachers").glob("assisted-*.safetensors")
    return path


def outcome(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "search.json").read_text())
    return content


def test_every_teacher_has_the_same_trainings_of_the_student(folder: Path) -> None:
    result = outcome(folder)
    names = ["recipe", "small", "pair", "assisted"]
    references = ["alone", "label_smoothing", "pseudo_labels"]
    counts = {arm["name"]: 0 for arm in result["arms"]}
    assert set(counts) == {*names, *references}
    for trial in result["trials"]:
        counts[trial["arm"]] += trial["num_steps"]
    assert set(counts.values()) == {2 * 9}
    assert list(result["refused"]) == ["broken"]
    assert set(result["teachers"]["scores"]) == set(names)
    assert result["teachers"]["outcome"] == "test"
    assert set(result["teachers"]["best"]) <= set(names)


def test_teachers_are_ordered_by_their_validation_score(folder: Path) -> None:
    result = outcome(folder)
    signals = result["signals"]["teachers"]
    scores = [signals[arm["name"]]["teacher_score"] for arm in result["arms"][:4]]
    assert scores == sorted(scores, reverse=True)
    sizes = {name: one["parameter_ratio"] for name, one in signals.items()}
    assert sizes["pair"] == pytest.approx(2 * sizes["recipe"])
    assert sizes["small"] < sizes["assisted"] < sizes["recipe"]
    assert all(0 < one["teacher_agreement"] <= 1 for one in signals.values())
    entry = result["teachers"]["correlations"]["teacher_score"]
    assert -1 <= entry["value"] <= 1
    assert entry["teachers"] == 4


def test_each_student_learns_from_its_own_teacher(folder: Path) -> None:
    result = outcome(folder)
    validation = {row["name"]: row["validation"]["values"] for row in result["finalists"]}
    names = ("recipe", "small", "pair", "assisted")
    curves = {name: tuple(validation[name]) for name in names}
    assert len(set(curves.values())) > 1
    arms = {arm["name"]: arm["changes"] for arm in result["arms"]}
    weights = Path(arms["assisted"]["teacher"]["weights"])
    assert weights == assistant_of(folder).resolve()
    assert arms["pair"]["teacher"]["num_replicas"] == 2
    assert "Teachers" in (folder / "search.html").read_text()


def test_the_best_recipe_has_the_teacher_of_the_winner(folder: Path) -> None:
    best = load(folder / "best.yaml")
    assert best.teachers[0].model == "networks:mlp"
    assert best.name == "tiny-best"


def test_the_row_of_the_teacher_is_that_of_the_winner(folder: Path) -> None:
    trainer = Trainer(Experiment.from_recipe(load(folder)), folder)
    study = Study(State.from_json(read_state(folder)), trainer, 1, lambda result: None)
    arms = {arm.name: arm for arm in study.state.arms}
    assert _recipe_of_teacher(study, arms["alone"]) is None
    own = _recipe_of_teacher(study, arms["small"])
    assert own is not None
    assert own.teachers[0].options["width"] == 8
    result = outcome(folder)
    signals = result["signals"]["teachers"]
    winner = result["winner"] if result["winner"] in signals else "recipe"
    expected = signals[winner]["parameter_ratio"] * result["student_parameters"]
    assert result["teacher"]["parameters"] == pytest.approx(expected)


def test_a_continued_search_reads_its_trials(folder: Path) -> None:
    first = outcome(folder)
    continue_search(folder)
    assert without_times(outcome(folder)) == without_times(first)


def test_a_budget_leaves_out_the_teachers_with_the_lowest_score(tmp_path: Path) -> None:
    teachers = {f"width_{width}": {"options": {"width": width}} for width in (2, 4, 16)}
    settings = Settings(over=("teachers",), teachers=teachers, num_seeds=1, max_runs=6)
    result = start(recipe(), settings, tmp_path / "small", silent())
    names = [arm["name"] for arm in result["arms"] if not arm["is_reference"]]
    scores = {name: one["teacher_score"] for name, one in result["signals"]["teachers"].items()}
    worst = min(scores, key=lambda name: scores[name])
    assert set(scores) - set(names) == {worst}
    assert result["notes"][0].startswith("The budget leaves out 1 candidates")
    assert result["notes"][0].endswith(worst)
    assert result["steps"] <= 6 * 9


def test_changes_on_the_command_line() -> None:
    text = "options.width=8, num_replicas=2+options.width=4, weights=runs/a.safetensors"
    parsed = parse_teachers(text)
    assert parsed is not None
    assert list(parsed) == ["width_8", "num_replicas_2_width_4", "a"]
    first, second, third = teacher_candidates(recipe(), parsed)
    assert isinstance(first.teacher, dict)
    assert isinstance(second.teacher, dict)
    assert isinstance(third.teacher, dict)
    assert first.teacher["options"] == {"width": 8}
    assert second.teacher["num_replicas"] == 2
    assert second.teacher["options"] == {"width": 4}
    assert third.teacher["weights"] == "runs/a.safetensors"


def test_names_of_files_and_folders() -> None:
    parsed = parse_teachers("weights=a.pt,weights=runs/b.pt+precompute=true,options.path=org/m@v1")
    assert parsed is not None
    assert list(parsed) == ["a", "b_precompute_true", "path_org_m_v1"]


def test_an_assistant_does_not_start_from_the_weights_of_the_teacher() -> None:
    own = recipe(teacher={"model": "mlp", "options": {"width": 32}, "weights": "teacher.pt"})
    sections = {"assisted": {"assistant": {"model": "networks:mlp"}}}
    (candidate,) = teacher_candidates(own, sections)
    assert candidate.assistant is not None
    assert candidate.assistant["options"] == {"width": 32}
    assert "weights" not in candidate.assistant
    assert isinstance(candidate.teacher, dict)
    assert candidate.teacher["weights"] == "teacher.pt"


def test_an_assistant_of_a_search_that_ended_early_is_that_of_its_recipe(tmp_path: Path) -> None:
    """The folder of such a search may be used again, with another recipe."""
    weights = []
    for steps in (9, 9, 4):
        own = recipe(train={"steps": steps, "optimizer": {"type": "adamw", "lr": 1e-2}})
        trainer = Trainer(Experiment.from_recipe(own), tmp_path)
        (candidate,) = teacher_candidates(own, {"assisted": TEACHERS["assisted"]})
        section = _trained_section(trainer, candidate)
        assert isinstance(section, dict)
        path = Path(section["weights"])
        weights.append((path, path.stat().st_mtime_ns, load_file(path)))
    assert weights[0][:2] == weights[1][:2]
    assert not all(torch.equal(weights[2][2][key], one) for key, one in weights[0][2].items())


def test_changed_weights_of_a_teacher_are_refused(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    shutil.copy(assistant_of(folder), path)
    teachers = {"own": {"options": {"width": 24}, "weights": str(path)}}
    settings = Settings(over=("teachers",), teachers=teachers, num_seeds=1)
    start(recipe(), settings, tmp_path / "out", silent())
    weights = {name: 0 * tensor for name, tensor in load_file(path).items()}
    save_file(weights, path)
    with pytest.raises(ValueError, match=r"--resume: own: teacher\.weights .* has changed since"):
        continue_search(tmp_path / "out")


def test_sections_in_a_file(tmp_path: Path) -> None:
    sections = {
        "cnn": {"model": "networks:cnn", "options": {"width": 2}},
        "both": [{"options": {"width": 4}}, {"model": "networks:cnn"}],
        "assisted": {"assistant": {"options": {"width": 8}}},
    }
    path = tmp_path / "teachers.yaml"
    path.write_text(yaml.safe_dump(sections, sort_keys=False))
    parsed = parse_teachers(str(path))
    assert parsed is not None
    cnn, both, assisted = teacher_candidates(recipe(), parsed)
    assert isinstance(cnn.teacher, dict)
    assert cnn.teacher["options"] == {"width": 2}
    assert isinstance(both.teacher, list)
    assert [one["model"] for one in both.teacher] == ["networks:mlp", "networks:cnn"]
    assert "options" not in both.teacher[1]
    assert assisted.assistant is not None
    assert assisted.assistant["options"] == {"width": 8}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"over": ("teachers", "methods")}, "--over: methods and teachers at once"),
        ({"over": ("methods",), "teachers": TEACHERS}, "--teachers: for teachers only"),
        ({"prior": "best"}, "--prior: unknown name 'best'. Expected auto, none, model or the file"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


def test_wrong_teachers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--teachers: 'small' is not a teacher"):
        parse_teachers("small")
    with pytest.raises(FileNotFoundError, match=r"--teachers: no file none\.yaml"):
        parse_teachers("none.yaml")
    (tmp_path / "bad.yaml").write_text("small: [options.width=8")
    with pytest.raises(RecipeError, match=r"bad\.yaml, line 1"):
        parse_teachers(str(tmp_path / "bad.yaml"))
    unknown = {"odd": {"model": "networks:cnn", "colour": "red"}}
    alone: dict[str, Any] = {"teacher": None, "objectives": {"cross_entropy": {}}}
    cases: list[tuple[dict[str, Any], dict[str, Any] | None, str]] = [
        (alone, TEACHERS, "teacher: missing"),
        ({}, None, "--teachers: missing"),
        ({}, {"odd": 3}, "--teachers: odd is not a section"),
        ({}, unknown, "--teachers: odd: .*colour"),
        ({}, {"odd": []}, "--teachers: odd is empty"),
        ({}, {"a/b": {}}, "--teachers: 'a/b' is not a name"),
        ({}, {"odd": {"weights": "no.pt"}}, r"--teachers: odd: no 'no\.pt' in "),
    ]
    for changes, teachers, message in cases:
        settings = Settings(over=("teachers",), teachers=teachers)
        with pytest.raises(RecipeError, match=message):
            start(recipe(**changes), settings, tmp_path / "none", silent())
    assert not (tmp_path / "none").exists()


def test_the_agreement_of_teachers() -> None:
    decisions = {"a": torch.tensor([0, 1, 2, 3]), "b": torch.tensor([0, 1, 2, 0]), "c": None}
    names = list(decisions)
    assert mean_agreement("a", names, decisions) == 0.75
    assert mean_agreement("c", names, decisions) is None


def test_the_correlation_has_an_interval_for_five_teachers() -> None:
    pairs = [(1.0, 2.0), (2.0, 3.0), (3.0, 5.0), (4.0, 4.0), (5.0, 9.0)]
    facts = correlation(pairs)
    assert facts["value"] == pytest.approx(0.9)
    low, high = facts["interval"]
    assert low < 0.9 <= high
    assert correlation(pairs[:4])["interval"] is None
    assert correlation(pairs[:2])["value"] is None
    assert correlation([(1.0, one) for _, one in pairs])["value"] is None


def test_teachers_that_do_not_fit_or_share_a_name_are_errors(tmp_path: Path) -> None:
    settings = Settings(
        over=("teachers",), teachers={"broken": {"model": "cnn", "options": {"norm": "layer"}}}
    )
    with pytest.raises(ValueError, match=r"--teachers: none fits.*got broken: "):
        start(recipe(), settings, tmp_path / "out", silent())
    with pytest.raises(ValueError, match="--teachers: two teachers have the name net"):
        parse_teachers("weights=a/net.safetensors,weights=b/net.safetensors")
    settings = Settings(over=("teachers",), teachers={"alone": {"options": {"width": 8}}})
    with pytest.raises(RecipeError, match="--teachers: alone is the name of another arm"):
        start(recipe(), settings, tmp_path / "out", silent())
