"""Recipes of ``instil compress``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from instil.cli import app
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.export.student import save_student
from instil.recipe import to_yaml
from instil.search.compression import compression_recipe
from tests.search.recipes import recipe

CHANGES = ["train.steps=2", "device=cpu"]


def run_folder(path: Path) -> Path:
    """Folder with the recipe and the weights of a student, as a run writes it."""
    own = recipe()
    path.mkdir()
    (path / "recipe.yaml").write_text(to_yaml(own))
    net = build_network(own.student, Experiment.from_recipe(own), "student")
    save_student(net, path / "student.safetensors")
    return path


def test_a_model_is_trained_as_the_teacher() -> None:
    built = compression_recipe("networks:cnn", "digits", [*CHANGES, "teacher.options.width=8"])
    assert built.teachers[0].model == "networks:cnn"
    assert built.teachers[0].options == {"width": 8}
    assert built.student.model == "teacher"
    assert built.data.name == "digits"
    assert set(built.objectives) == {"cross_entropy", "dist"}


@pytest.mark.parametrize(
    ("kind", "label", "expected"),
    [
        ("single", [0, 1, 2] * 10, {"cross_entropy": {}, "dist": {}}),
        ("single", [0, 1, 1] * 10, {"cross_entropy": {}, "kd": {"multi_label": False}}),
        (
            "multi",
            [[0.0, 1.0], [1.0, 1.0]] * 15,
            {"cross_entropy": {}, "kd": {"multi_label": True}},
        ),
    ],
)
def test_the_losses_are_those_of_distil_for_the_labels_of_the_data(
    tmp_path: Path, kind: str, label: list[object], expected: dict[str, dict[str, bool]]
) -> None:
    image = np.random.default_rng(0).random((30, 8, 8), np.float32)
    np.savez(tmp_path / "own.npz", image=image, label=np.array(label))
    task = f"task={{name: classification, kind: {kind}}}"
    built = compression_recipe("networks:mlp", f"npz:{tmp_path / 'own.npz'}", [*CHANGES, task])
    assert set(built.objectives) == set(expected)
    for name, options in expected.items():
        assert options.items() <= built.objectives[name].options.items()


def test_the_losses_fit_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    # The losses of numbers do not depend on the data, which are not read for them.
    with monkeypatch.context() as patch:
        patch.setattr(Experiment, "from_recipe", None)
        built = compression_recipe("networks:cnn", "digit_poses", [*CHANGES, "task=regression"])
    assert set(built.objectives) == {"mean_squared_error", "logit_mse"}
    own = compression_recipe("networks:cnn", "digits", ["objectives={dkd: {}}"])
    assert set(own.objectives) == {"dkd"}


def test_the_student_of_a_run_becomes_the_teacher(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    for model in (folder, folder / "student.safetensors"):
        built = compression_recipe(str(model), None, CHANGES)
        teacher = built.teachers[0]
        assert (teacher.model, teacher.options) == ("networks:mlp", {"width": 16})
        assert teacher.ready
        assert built.data.num_labeled == 100
        assert built.train.steps == 2


def test_a_recipe_keeps_its_teacher_and_may_have_other_data(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(to_yaml(recipe()))
    built = compression_recipe(str(path), None, CHANGES)
    assert built.student.options == {"width": 16}
    assert compression_recipe("digits", "digit_scenes", []).data.name == "digit_scenes"


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"")
    with pytest.raises(ValueError, match=r"MODEL: .* has no architecture.*teacher.weights="):
        compression_recipe(str(weights), "digits", [])
    with pytest.raises(ValueError, match=r"DATA: missing\. Expected a data source"):
        compression_recipe("networks:cnn", None, [])
    folder = run_folder(tmp_path / "run")
    (folder / "recipe.yaml").write_text(to_yaml(recipe(student={"model": "teacher"})))
    with pytest.raises(ValueError, match=r"^MODEL: No recipe named 'resnet18'.* timm:resnet18$"):
        compression_recipe("resnet18", "digits", [])
    with pytest.raises(FileNotFoundError, match=r"^no such recipe: missing\.yaml\."):
        compression_recipe("missing.yaml", "digits", [])
    with pytest.raises(ValueError, match=r"MODEL: the student of .* is compressed"):
        compression_recipe(str(folder), None, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compress", "networks:cnn"], "DATA: missing"),
        (["compress", "networks:cnn", "digits", "table"], "DATA: several data sources"),
        (["compress", "digits", "--keep", "most"], "--keep: 'most' is not a share"),
        (["compress", "digits", "--limit", "speed=5"], "--limit: unknown limit 'speed'"),
        (["search", "digits", "--limit", "size=4MB"], "--limit: for students only"),
        (["search", "digits", "--keep", "90%"], "--keep: for students only"),
        (["search", "digits", "--students", "timm"], "--students: for students only"),
        (["search", "digits", "--over", "weights"], "--over: unknown subject 'weights'"),
        (
            ["search", "digits", "--over", "method"],
            "--over: unknown subject 'method'. Expected methods or options or students or "
            "teachers, or two of them, separated by a comma. Did you mean methods?",
        ),
        (["search", "digits", "--prior", "no.json"], "--prior: no such file 'no.json'"),
        (["search", "digits", "--strategy", "grid"], "--strategy: unknown name 'grid'"),
        (["search", "digits", "--sampler", "cma"], "--sampler: unknown name 'cma'"),
        (["search", "digits", "--steps", "5", "--runs", "2"], "--budget: several limits"),
        (["search", "digits", "--resume", "folder"], "--resume: a stopped search has"),
        (["search", "--resume", "folder", "--steps", "9"], "--resume: a stopped search has"),
        (["search", "--resume", "folder"], "--resume: folder is not the folder of a search"),
    ],
)
def test_wrong_words_on_the_command_line_are_errors(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, (ValueError, FileNotFoundError))
    assert str(result.exception).startswith(message)


@pytest.mark.parametrize("budget", ["5", "2w", "-1h", "inf h"])
def test_a_budget_is_a_time_with_a_unit(budget: str) -> None:
    result = CliRunner().invoke(app, ["search", "digits", "--budget", budget])
    assert result.exit_code == 2
    assert "expected a time such as 90s" in result.output


@pytest.mark.parametrize("command", ["compress", "doctor"])
def test_an_estimator_has_no_copy_that_trains(tmp_path: Path, command: str) -> None:
    pytest.importorskip("sklearn")
    model = "sklearn:DecisionTreeClassifier"
    changes = ["task=tabular_classification", *CHANGES]
    words = {
        "compress": [model, "sklearn:iris", *changes, "--out", str(tmp_path / "out")],
        "doctor": ["kd", f"teacher={model}", "student=teacher", "data=sklearn:iris", *changes],
    }
    result = CliRunner().invoke(app, [command, *words[command]])
    message = str(result.exception)
    assert message.startswith("student.model: 'teacher' copies the teacher, and sklearn:")
    assert "Training the teacher" not in result.output
