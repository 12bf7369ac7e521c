"""Teachers are trained once: options that change the cached file, and teachers with weights."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from instil.experiment.experiment import Experiment
from instil.experiment.trained_teachers import cache_path, load_if_trained
from instil.plan import fitting as module
from instil.recipe.sections import Recipe
from tests.experiment.small import SMALL, lines, recipe, result, run_of

SHORT = ["seeds=[0]", "baselines=[]", "train.epochs=1"]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Return the names of the trained arms."""
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    names, original = [], module.fit

    def fit(*inputs: Any, checkpoint: Path, **options: Any) -> Any:
        names.append(checkpoint.stem)
        return original(*inputs, checkpoint=checkpoint, **options)

    monkeypatch.setattr(module, "fit", fit)
    return names


def where(one: Recipe) -> Path:
    experiment = Experiment.from_recipe(one)
    return cache_path(experiment.stages[0], one.teachers[0], 0)


def test_once_and_with_its_curve_in_every_run(trained: list[str], tmp_path: Path) -> None:
    first = run_of(recipe(*SHORT), tmp_path / "first")
    second = run_of(recipe(*SHORT, "objectives.kd.temperature=8"), tmp_path / "second")
    assert trained == ["teacher-stage0", "distilled-0-stage0", "distilled-0-stage0"]
    assert first["teacher"] == second["teacher"]
    assert first["cost"]["teacher"]["seconds"] == second["cost"]["teacher"]["seconds"] > 0
    curves = [
        [line for line in lines(tmp_path / name) if line["arm"] == "teacher"]
        for name in ("first", "second")
    ]
    assert len(curves[0]) == 1
    assert curves[0] == curves[1]
    assert not (tmp_path / "first" / "checkpoint" / "teacher-stage0.pt").exists()


@pytest.mark.parametrize(
    "change",
    [
        "teacher.options.width=3",
        "teacher.model=mlp",
        "teacher.input={size: 16}",
        "teacher_train.epochs=3",
        "teacher_train.optimizer.lr=0.5",
        "data.batch_size=10",
        "data.augment.crop=1",
        "objectives.cross_entropy.class_weights=balanced",
    ],
)
def test_what_makes_another_teacher(change: str) -> None:
    assert where(recipe(change)) != where(recipe())


def test_another_version_of_the_outputs_makes_another_teacher(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = where(recipe())
    monkeypatch.setattr("instil.experiment.trained_teachers.OUTPUTS_VERSION", -1)
    assert where(recipe()) != before


@pytest.mark.parametrize(
    "change",
    [
        "data.num_labeled=50",
        "data.workers=2",
        "seeds=[5]",
        "objectives.kd.temperature=8",
        "objectives.cross_entropy.weight=2",
        "student.options.width=8",
        "teacher.taps={features: stages.0}",
    ],
)
def test_what_does_not(change: str) -> None:
    assert where(recipe(change)) == where(recipe())


def test_students_with_and_without_data_share_a_teacher() -> None:
    surrogate = recipe("data.surrogate=noise", "baselines=[noise]", "objectives={kd: {}}")
    assert where(surrogate) == where(recipe("objectives={kd: {}}"))


def arrays(folder: Path, seed: int) -> None:
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(seed)
    np.savez(
        folder / "data.npz",
        image=generator.integers(0, 255, (60, 8, 8)).astype(np.uint8),
        label=np.arange(60) % 3,
    )


def test_other_data_under_the_same_name_make_another_teacher(tmp_path: Path) -> None:
    for seed, name in enumerate(("one", "other")):
        arrays(tmp_path / name, seed)
    changes = {"data": {"name": "npz:data.npz", "batch_size": 10}}
    one, other = (
        where(recipe(**changes, folder=str(tmp_path / name))) for name in ("one", "other")
    )
    assert one != other
    arrays(tmp_path / "other", 0)
    assert where(recipe(**changes, folder=str(tmp_path / "other"))) == one


@pytest.mark.parametrize("rule", ["keep=best", "early_stopping={patience: 1}"])
def test_what_chooses_the_weights_makes_another_teacher(rule: str) -> None:
    """The best epoch depends on the headline metric and on the validation samples."""
    rules = [f"teacher_train.{rule}", "metrics=[macro_f1]"]
    headline = "headline=macro_f1"
    assert where(recipe(*rules, headline)) != where(recipe(*rules))
    assert where(recipe("metrics=[macro_f1]", headline)) == where(recipe("metrics=[macro_f1]"))
    for changes, is_other in ((rules, True), ([], False)):
        one = recipe(*changes)
        stage = Experiment.from_recipe(one).stages[0]
        few = stage.splits.validation.subset(torch.arange(len(stage.splits.validation) - 1))
        other = replace(stage, splits=replace(stage.splits, validation=few))
        paths = [cache_path(each, one.teachers[0], 0) for each in (stage, other)]
        assert (paths[0] != paths[1]) is is_other


def test_other_weights_in_the_folder_of_a_model_make_another_teacher(tmp_path: Path) -> None:
    """A folder of transformers that the training of the teacher starts from."""
    (tmp_path / "model").mkdir()
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(b"first")
    model = {"model": "transformers:AutoModelForImageClassification", "options": {"path": "model"}}
    one = recipe(teacher=model, folder=str(tmp_path))
    before = where(one)
    assert where(one) == before
    weights.write_bytes(b"other")
    assert where(one) != before


def test_changed_code_of_the_user_makes_another_teacher(tmp_path: Path) -> None:
    code = tmp_path / "my_teacher.py"
    code.write_text(
        "from instil.networks.mlp import mlp\ndef build(classes): return mlp(classes, width=4)\n"
    )
    one = recipe("teacher.model=my_teacher:build", "teacher.options={}", folder=str(tmp_path))
    before = where(one)
    assert where(one) == before
    code.write_text(code.read_text().replace("4", "5"))
    assert where(one) != before


def test_the_environment_variable_sets_the_cache_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "here"))
    assert where(recipe()).parent == tmp_path / "here" / "teachers"
    monkeypatch.delenv("INSTIL_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert where(recipe()).parent == tmp_path / ".cache" / "instil" / "teachers"


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_of_a_file_are_used_and_not_trained(
    suffix: str, trained: list[str], tmp_path: Path
) -> None:
    first = run_of(recipe(*SHORT), tmp_path / "first")
    experiment = Experiment.from_recipe(recipe())
    net = load_if_trained(experiment, experiment.recipe.teachers[0], 0)
    assert net is None, "its training had another length"
    experiment = Experiment.from_recipe(recipe(*SHORT))
    net = load_if_trained(experiment, experiment.recipe.teachers[0], 0)
    assert net is not None
    weights = tmp_path / f"teacher{suffix}"
    if suffix == ".pt":
        torch.save({"state_dict": net.model.state_dict()}, weights)
    else:
        os.link(where(recipe(*SHORT)), weights)
    trained.clear()
    outcome = run_of(
        recipe(*SHORT, f"teacher.weights={weights.name}", folder=str(tmp_path)), tmp_path / "second"
    )
    assert trained == ["distilled-0-stage0"]
    assert outcome["teacher"] == first["teacher"]
    assert outcome["distilled"] == first["distilled"]
    assert not [line for line in lines(tmp_path / "second") if line["arm"] == "teacher"]


def test_a_teacher_that_is_trained_as_it_is_built(trained: list[str], tmp_path: Path) -> None:
    (tmp_path / "ready.py").write_text(
        "import torch\nfrom instil.networks.mlp import mlp\ndef build(classes):\n    "
        "torch.manual_seed(5)\n    return mlp(classes, width=4)\n"
    )
    outcome = run_of(
        recipe(*SHORT, teacher={"model": "ready:build", "is_trained": True}, folder=str(tmp_path)),
        tmp_path / "run",
    )
    assert trained == ["distilled-0-stage0"]
    assert outcome["cost"]["teacher"]["seconds"] == 0


def test_classes_in_another_order_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    names = [str(index) for index in (1, 0, *range(2, 10))]
    with pytest.raises(
        ValueError,
        match="classes of teacher and data are in another order: class 0 is '1' for the "
        "teacher and '0' in the data",
    ):
        run_of(recipe(*SHORT, teacher={**SMALL["teacher"], "classes": names}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_cannot_be_trained_for_want_of_classes(tmp_path: Path) -> None:
    teacher = {"model": "cnn", "options": {"width": 2, "classes": 4}}
    with pytest.raises(
        ValueError, match="teacher: the teacher gives 4 logits, the data has 10 classes"
    ):
        run_of(
            recipe(
                *SHORT,
                teacher=teacher,
                student={"model": "cnn"},
                objectives={"cross_entropy": {}, "fitnet": {}},
            ),
            tmp_path / "run",
        )


def test_the_teachers_row_is_its_score_on_the_test_set(tmp_path: Path) -> None:
    run_of(recipe(*SHORT), tmp_path / "run")
    experiment = Experiment.from_recipe(recipe(*SHORT))
    net = load_if_trained(experiment, experiment.recipe.teachers[0], 0)
    assert net is not None
    with torch.no_grad():
        right = (
            net.eval()({"image": experiment.splits.test.image})["logits"].argmax(-1)
            == experiment.splits.test.label
        )
    assert result(tmp_path / "run")["teacher"]["accuracy"]["values"] == [
        pytest.approx(right.double().mean().item())
    ]
