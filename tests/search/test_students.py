"""Searches over students of a tiny recipe."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from instil.cli.search_students_table import show_students, student_sentences
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.networks.causal_transformer import causal_transformer
from instil.networks.factory import build as build_model
from instil.plan.run import run
from instil.recipe import RecipeError, load
from instil.search.arms import arm_recipe, base_data, with_space
from instil.search.search import Settings, resume, start
from instil.search.student_arms import TIMM, student_arms
from instil.search.student_costs import measure_student
from tests.search.recipes import recipe, silent, without_times

NAMES = ("networks", "teacher", "timm:nothing")
LIMIT = 8000.0
slow = pytest.mark.slow
pytest.importorskip("onnxruntime")


def students(folder: Path, **settings: Any) -> dict[str, Any]:
    """Search over the students of the tiny recipe."""
    options = {"over": ("students",), "students": NAMES, "num_seeds": 2, **settings}
    own = recipe(train={"steps": 40, "optimizer": {"type": "adamw", "lr": 1e-2}})
    return start(own, Settings(**options), folder, silent())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished search over students."""
    path = tmp_path_factory.mktemp("students") / "first"
    students(path, limits={"size": LIMIT}, keep=0.5)
    return path


@pytest.fixture
def outcome(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "search.json").read_text())
    return content


@slow
def test_a_student_beyond_a_limit_is_not_trained(outcome: dict[str, Any]) -> None:
    refused = outcome["refused"]
    assert "no model 'nothing'" in refused["nothing"]
    assert "the teacher has 2,410" in refused["mlp_w32_d1"]
    reason = r"size 12\.\d kB; the limit is 8 kB; int8: size 8"
    assert re.match(reason, refused["teacher_8_bits"])
    arms = {arm["name"]: arm for arm in outcome["arms"]}
    # Compressed teachers may fit, too.
    assert list(arms)[:3] == ["recipe", "mlp_w8_d1", "mlp_w4_d1"]
    assert all(name.startswith("teacher_") for name in list(arms)[3:])
    assert {trial["arm"] for trial in outcome["trials"]} == set(arms)
    for arm in arms.values():
        int8 = arm["costs"]["int8"] or {}
        assert min(arm["costs"]["bytes"], int8.get("bytes", LIMIT + 1)) <= LIMIT


@slow
def test_every_file_has_scores_and_costs(outcome: dict[str, Any]) -> None:
    assert outcome["runtime"] == "onnxruntime"
    for row in outcome["finalists"]:
        assert row["latency_ms"] > 0
        assert row["memory_bytes"] > row["bytes"]
        assert 0 <= row["test"]["mean"] <= 1
        if row["format"] == "int8":
            whole = next(one for one in outcome["finalists"] if one["name"] == row["arm"])
            assert row["parameters"] == whole["parameters"]
            assert abs(row["test"]["mean"] - whole["test"]["mean"]) < 0.1


@slow
def test_the_chosen_student_is_the_smallest_that_keeps_the_share(outcome: dict[str, Any]) -> None:
    target = 0.5 * outcome["teacher"]["validation"]["accuracy"]
    assert outcome["keep"] == {"share": 0.5, "target": pytest.approx(target), "is_met": True}
    good = [
        row
        for row in outcome["finalists"]
        if row["validation"]["mean"] >= target and row["bytes"] <= LIMIT
    ]
    chosen = next(row for row in good if row["name"] == outcome["winner"])
    assert chosen["bytes"] == min(row["bytes"] for row in good)
    for facts in outcome["frontiers"].values():
        assert 0 <= facts["hypervolume"]["mean"] <= 1.5
        assert facts["students"]


@slow
def test_the_page_shows_frontiers_and_limits(folder: Path, outcome: dict[str, Any]) -> None:
    page = (folder / "search.html").read_text()
    for text in ("Quality against latency", "Quality against size", "Students that were refused"):
        assert text in page
    assert "is the smallest student within the limits that keeps 50 %" in page
    assert page.count("Hypervolume ") == 4
    assert "Quality against memory" in page
    assert outcome["winner"] in page


@slow
def test_the_best_recipe_trains_the_chosen_student(
    folder: Path, outcome: dict[str, Any], tmp_path: Path
) -> None:
    best = load(folder / "best.yaml")
    assert best.export
    assert best.baselines == recipe().baselines == ["alone", "label_smoothing", "pseudo_labels"]
    chosen = next(row for row in outcome["finalists"] if row["name"] == outcome["winner"])
    arm = next(arm for arm in outcome["arms"] if arm["name"] == chosen["arm"])
    section = arm["changes"].get("student", recipe().student.model_dump(mode="json"))
    assert best.student.model_dump(mode="json") == section
    run_folder = run(best, tmp_path / "run", None, silent())
    result = json.loads((run_folder / "result.json").read_text())
    trials = [t for t in outcome["trials"] if t["arm"] == chosen["arm"] and t["round"] < 0]
    expected = sum(trial["test"]["accuracy"] for trial in trials) / len(trials)
    assert result["distilled"]["accuracy"]["mean"] == pytest.approx(expected)


@slow
def test_a_search_over_students_continues(
    folder: Path, outcome: dict[str, Any], tmp_path: Path
) -> None:
    trials = sorted((folder / "trials").iterdir())
    removed = trials[0].read_text()
    trials[0].unlink()
    again = resume(folder, silent())
    assert without_times(json.loads(json.dumps(again))) == without_times(outcome)
    assert without_times(json.loads(trials[0].read_text())) == without_times(json.loads(removed))


@slow
def test_pruned_sparse_and_quantised_teachers_take_part(tmp_path: Path) -> None:
    # Large enough for the weights to outweigh the operators of quantisation in the file.
    teacher = {"model": "cnn", "options": {"width": 24, "stages": 2}}
    train = {"steps": 20, "optimizer": {"type": "adamw", "lr": 1e-2}}
    own = recipe(teacher=teacher, train=train)
    names = ("teacher",)
    settings = Settings(over=("students",), students=names, num_seeds=1, strategy="exhaustive")
    outcome = start(own, settings, tmp_path / "search", silent())
    arms = {arm["name"]: arm for arm in outcome["arms"]}
    pruned = arms["teacher_pruned_75"]
    assert pruned["changes"]["student"]["rounds"] == 2
    whole = arms["teacher_2_of_4"]["costs"]
    assert pruned["costs"]["parameters"] < 0.2 * whole["parameters"]
    integers = arms["teacher_lsq_4_bits"]["costs"]
    assert integers["bytes"] < whole["bytes"]
    assert integers["int8"] is None
    scores = {trial["arm"]: trial for trial in outcome["trials"] if trial["round"] < 0}
    assert set(arms) <= set(scores)
    # The steps of both rounds are counted on.
    steps = [step for step, _ in scores["teacher_pruned_75"]["curve"]]
    assert steps == sorted(set(steps))
    assert steps[-1] == 20


def test_candidates_are_networks_of_other_sizes_and_compressed_teachers() -> None:
    own = recipe(student={"model": "networks:cnn", "options": {"width": 8, "depth": 2}})
    teacher = build_model("networks:vit", {"width": 16, "depth": 4}, classes=10)
    arms = {arm.name: arm for arm in student_arms(own, teacher, None)}
    names = set(arms)
    assert {"recipe", "cnn_w16_d2", "cnn_w16_d1", "cnn_w4_d1", "mlp_w16_d1", "mlp_w4_d1"} < names
    assert "cnn_w8_d2" not in names
    assert {"teacher_3_layers", "teacher_2_layers", "teacher_1_layers"} < names
    assert not any(name.startswith("lcnet") for name in names)
    student = arms["teacher_2_layers"].changes["student"]
    assert student["model"] == "teacher"
    assert student["changes"] == {"depth": {"layers": 2}}
    timm = {arm.name: arm for arm in student_arms(own, None, ("timm", "timm:resnet26"))}
    assert timm["resnet26"].changes["student"]["model"] == "timm:resnet26"
    assert "lcnet_035" in timm


def test_models_of_one_name_have_names_of_their_own() -> None:
    names = ("timm:resnet18", "torchvision:resnet18", "timm:resnet18", "networks", "networks")
    arms = [arm.name for arm in student_arms(recipe(), None, names)]
    assert len(set(arms)) == len(arms)
    assert {"resnet18", "torchvision:resnet18"} <= set(arms)


def test_language_models_lose_a_block_of_layers() -> None:
    own = recipe()
    own = own.model_copy(update={"task": own.task.model_copy(update={"name": "language"})})
    teacher = causal_transformer(11, depth=4)
    arms = {arm.name: arm for arm in student_arms(own, teacher, ("teacher",))}
    change = arms["teacher_2_layers"].changes["student"]["changes"]
    assert change == {"depth": {"layers": 2, "by": "block"}}


@slow
def test_the_models_of_timm_exist() -> None:
    timm = pytest.importorskip("timm")
    assert set(TIMM) <= set(timm.list_models())


def test_options_of_the_recipe_are_searched_for_each_student() -> None:
    own = recipe()
    base = base_data(own)
    task = Experiment.from_recipe(own).task
    arms = list(student_arms(own, None, ("networks",)))
    for arm in arms:
        paths = [one.path for one in with_space(arm, base, task).dimensions]
        assert "learning_rate_factor" in paths
        assert "objectives.kd.temperature" in paths
    params = {"objectives.kd.temperature": 3.0}
    data = arm_recipe(base, arms[-1], params)
    assert data["objectives"]["kd"]["temperature"] == 3.0
    assert data["student"] == arms[-1].changes["student"]


def test_the_console_names_the_file_and_what_it_keeps() -> None:
    costs = {"bytes": 20_000, "latency_ms": 0.5, "parameters": 900}
    score = {"mean": 0.9, "interval": None}
    row = {"name": "small int8", "arm": "small", "format": "int8", "violation": "", **costs}
    volume = {"hypervolume": {"mean": 0.75}, "students": ["small int8"]}
    outcome = {
        "headline": "accuracy",
        "winner": "small int8",
        "keep": {"share": 0.99, "target": 0.8, "is_met": True},
        "limits": {},
        "teacher": {"validation": {"accuracy": 0.9}, "score": 0.91, "parameters": 5000},
        "teacher_costs": {"bytes": 90_000, "latency_ms": 2.0, "parameters": 5000},
        "finalists": [row | {"validation": score, "test": score}],
        "final_seeds": [3],
        "frontiers": {"size": volume},
        "trials": [],
        "steps": 10,
        "refused": {},
        "notes": [],
    }
    console = Console(file=io.StringIO(), width=200)
    show_students(outcome, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "keeps 99 % of the teacher's validation accuracy: 20 kB; the teacher has 90 kB." in text
    assert "Write its int8 file with: instil export RUN" in text
    assert "quality and size 0.75" in text
    row |= {"name": "label_smoothing@networks_of_the_teacher int8", "memory_bytes": 14_000}
    outcome |= {"winner": row["name"], "finalists": [row | {"validation": score, "test": score}]}
    outcome["frontiers"] = {}
    narrow = Console(file=io.StringIO(), width=80)
    show_students(outcome, narrow)
    text = narrow.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    assert all(len(line) <= 80 for line in text.splitlines() if "kB" in line and "keep" not in line)
    outcome["keep"] = {"share": 0.99, "target": 0.95, "is_met": False}
    assert student_sentences(outcome)[0].startswith("No student keeps 99 %")


def test_a_teacher_is_needed(tmp_path: Path) -> None:
    alone = recipe(teacher=None, objectives={"cross_entropy": {}})
    with pytest.raises(RecipeError, match="teacher: missing"):
        start(alone, Settings(over=("students",)), tmp_path / "alone", silent())


@slow
def test_a_limit_that_no_student_meets_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--limit: none of .* students fits.*size 10 B"):
        students(tmp_path / "none", students=("networks:mlp",), limits={"size": 10.0})


def test_students_have_settings_of_their_own() -> None:
    with pytest.raises(ValueError, match="--over: students and teachers at once"):
        Settings(over=("teachers", "students"))
    for name, value in {"students": ("timm",), "limits": {"size": 1.0}, "keep": 0.9}.items():
        with pytest.raises(ValueError, match=r"for students only\. Expected --over students"):
            Settings(**{name: value})  # type: ignore[arg-type]


def test_a_task_without_onnx_measures_pytorch() -> None:
    experiment = Experiment.from_recipe(recipe())
    experiment.task.exports = False
    costs = measure_student(experiment, build_network(recipe().student, experiment, "student"))
    # Four bytes for each of 64 * 16 + 16 + 16 * 10 + 10 weights.
    assert (costs["parameters"], costs["bytes"]) == (1210, 4840)
    assert (costs["runtime"], costs["int8"]) == ("torch", None)
    assert costs["latency_ms"] > 0
    assert 4840 + 4 * (64 + 16) <= costs["memory_bytes"] < 2 * 4840
