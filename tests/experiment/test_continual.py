"""Stages with other data, other classes and a growing head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import instil
from instil.experiment.experiment import Experiment
from instil.experiment.trained_teachers import cache_path
from instil.plan import fitting
from instil.plan.doctor import doctor
from instil.plan.overview import overview
from instil.recipe import RecipeError, build
from instil.recipe.overrides import override
from instil.recipe.sections import Recipe
from instil.report.page import write_report
from tests.experiment.small import numbers, result, run_of

LWF: dict[str, Any] = {
    "data": {"name": "digits", "batch_size": 100, "test_classes": "seen"},
    "student": {"model": "cnn", "options": {"width": 4}},
    "objectives": {"cross_entropy": {}},
    "train": {"epochs": 4, "optimizer": {"lr": 1e-2}, "checkpoint_every": 1},
    "stages": [
        {"name": "low", "data": {"class_subset": [0, 1, 2, 3, 4]}},
        {
            "name": "high",
            "data": {"class_subset": ["5", "6", "7", "8", "9"]},
            "student": {"model": "previous", "grow_head": True},
            "teacher": {"model": "previous", "shared_classes": True},
            "objectives": {"cross_entropy": {}, "kd": {"temperature": 2}},
        },
        {
            "name": "inverted",
            "data": {"name": "digit_domains", "look": "inverted"},
            "student": "previous",
            "teacher": "previous",
            "objectives": {"cross_entropy": {}, "kd": {}},
        },
    ],
    "seeds": [0, 1],
    "export": False,
}


def continual(*changes: str) -> Recipe:
    return build(override(LWF, changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("continual") / "run"
    run_of(continual(), out)
    return out


def test_each_stage_has_its_data_in_the_classes_of_its_student() -> None:
    low, high, inverted = Experiment.from_recipe(continual()).stages
    digits = tuple("0123456789")
    assert low.splits.classes == digits[:5]
    assert high.splits.classes == inverted.splits.classes == digits
    assert set(high.splits.train.label.tolist()) == {5, 6, 7, 8, 9}
    assert set(high.splits.test.label.tolist()) == set(range(10))
    assert low.recipe.data.options == {}
    assert inverted.recipe.data.options == {"look": "inverted"}
    assert inverted.recipe.data.class_subset is None
    assert inverted.recipe.data.batch_size == 100


SEEN = ["data.test_classes=null", "data.test_stages=seen"]


def test_students_are_tested_on_the_data_of_all_stages() -> None:
    """Each part has its samples and labels, in the classes of the student of the stage."""
    own = Experiment.from_recipe(continual("data.test_classes=null")).stages
    seen = Experiment.from_recipe(continual(*SEEN)).stages
    assert seen[0].splits.test is seen[0].stage_data.own_test
    for count, stage in enumerate(seen, 1):
        for split in ("validation", "test"):
            parts = [getattr(one.splits, split) for one in own[:count]]
            joined = getattr(stage.splits, split)
            assert joined.classes == stage.splits.classes
            labels = [joined.classes[label] for label in joined.label]
            assert labels == [part.classes[label] for part in parts for label in part.label]
            images = [part.inputs(torch.arange(len(part)))["image"] for part in parts]
            assert torch.equal(joined.inputs(torch.arange(len(joined)))["image"], torch.cat(images))
        assert len(stage.splits.train) == len(own[count - 1].splits.train)


def test_the_final_result_is_the_mean_over_equally_large_tests_of_all_stages(
    tmp_path: Path,
) -> None:
    domains = ["data.name=digit_domains", "data.test_stages=seen", "seeds=[0]", "train.epochs=1"]
    stages = "stages=[{name: plain}, {name: inverted, data: {look: inverted}, student: previous}]"
    content = run_of(build(override(LWF, [*domains, "data.test_classes=null", stages])), tmp_path)
    assert content["alone"]["accuracy"]["mean"] == pytest.approx(
        content["alone"]["average_accuracy"]["mean"]
    )
    assert content["data"]["test"] == 1000


def test_the_result_has_the_scores_of_all_stages(finished: Path) -> None:
    content = result(finished)
    stages = content["stages"]
    assert [test["name"] for test in stages["tests"]] == ["low", "high", "inverted"]
    assert [test["train"] for test in stages["tests"]] == [501, 499, 1000]
    for arm in ("alone", "distilled"):
        after = stages["arms"][arm]["after"]
        assert [[cell is not None for cell in row] for row in after] == [
            [True, False, False],
            [True, True, False],
            [True, True, True],
        ]
        final = [cell["values"] for cell in after[-1]]
        learned = [after[column][column]["values"] for column in range(3)]
        # The data of the final result are those of the last stage.
        assert final[2] == content[arm]["accuracy"]["values"]
        for index in range(2):
            mean = sum(values[index] for values in final) / 3
            assert content[arm]["average_accuracy"]["values"][index] == pytest.approx(mean)
            means = [entry["values"][index] for entry in stages["arms"][arm]["average"]]
            assert means[2] == pytest.approx(mean)
            assert means[0] == after[0][0]["values"][index]
            incremental = content[arm]["incremental_accuracy"]["values"][index]
            assert incremental == pytest.approx(sum(means) / 3)
            losses = [learned[column][index] - final[column][index] for column in range(3)]
            assert losses[2] == 0
            forgotten = content[arm]["forgetting"]["values"][index]
            assert forgotten == pytest.approx(sum(losses[:2]) / 2)
        # Same initial weights, data and steps: the first stage has no teacher.
    first = [stages["arms"][arm]["after"][0][0]["values"] for arm in ("alone", "distilled")]
    assert first[0] == first[1]
    assert content["classes"] == [*"0123456789"]
    assert content["data"]["name"] == "digit_domains"
    assert stages["gains"]["alone"]["mean"] == pytest.approx(
        content["distilled"]["average_accuracy"]["mean"]
        - content["alone"]["average_accuracy"]["mean"]
    )
    assert content["secondary"] == ["average_accuracy", "incremental_accuracy", "forgetting"]
    assert content["stages"]["higher_is_better"] == {
        "average_accuracy": True,
        "incremental_accuracy": True,
        "forgetting": False,
    }


def test_report_and_student_know_all_classes(finished: Path) -> None:
    page = write_report(finished).read_text()
    assert "low (digits, 5 classes)" in page
    assert "Distilled student, after stage 1" in page
    assert "Gain over the student alone in the mean over these tests" in page
    student = instil.load(finished)
    assert student(torch.rand(3, 1, 8, 8)).shape == (3, 10)


@pytest.mark.parametrize("name", ["alone-0", "distilled-0"])
def test_a_run_stopped_in_the_second_stage_ends_bit_for_bit_the_same(
    name: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = fitting.fit

    def stopped(*inputs: Any, on_step: Any, **options: Any) -> Any:
        def counted(clock: Any) -> None:
            if options["checkpoint"].stem == f"{name}-stage1" and clock.step == 12:
                raise KeyboardInterrupt
            on_step(clock)

        return fit(*inputs, on_step=counted, **options)

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "fit", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_of(continual(), tmp_path / "run")
    torch.manual_seed(99)
    resumed = run_of(continual(), tmp_path / "run", resume=True)
    assert numbers(resumed) == numbers(result(finished))
    assert resumed["stages"] == result(finished)["stages"]
    expected, actual = (
        load_file(out / "checkpoint" / f"{name}.safetensors")
        for out in (finished, tmp_path / "run")
    )
    assert all(torch.equal(value, actual[key]) for key, value in expected.items())


def test_doctor_and_plan_know_the_stages() -> None:
    assert doctor(continual())["problems"] == []
    jobs = overview(continual(), None)["jobs"]
    names = {job["name"] for job in jobs}
    assert {f"student/alone/seed-{seed}" for seed in (0, 1)} <= names
    other = overview(continual("stages.0.data.class_subset=[1,0,2,3,4]", "seeds=[0]"), None)["jobs"]
    assert other[0]["fingerprint"] not in {job["fingerprint"] for job in jobs}


def test_a_curriculum_keeps_the_head() -> None:
    """Classes that the student has already need no new outputs."""
    recipe = continual(
        "data.test_classes=null",
        "stages=[{}, {student: previous, data: {class_subset: [7, 3]}}]",
    )
    whole, few = Experiment.from_recipe(recipe).stages
    assert few.splits.classes == whole.splits.classes
    assert set(few.splits.test.label.tolist()) == {3, 7}


def test_a_class_subset_is_the_same_as_a_source_of_these_classes(tmp_path: Path) -> None:
    results = []
    for name, data in {
        "subset": "{name: digits, class_subset: [8, 3], batch_size: 32}",
        "source": "{name: digit_domains, classes: ['8', '3'], batch_size: 32}",
    }.items():
        recipe = continual("stages=[]", f"data={data}", "seeds=[0]", "baselines=[alone]")
        results.append(run_of(recipe, tmp_path / name))
    assert results[0]["classes"] == ["8", "3"]
    assert numbers(results[0]) == numbers(results[1])
    assert "stages" not in results[0]


def test_a_teacher_of_more_classes_teaches_those_of_the_student(tmp_path: Path) -> None:
    teacher = "{model: cnn, data: {name: digit_domains}, shared_classes: true}"
    recipe = continual(
        "stages=[]",
        "data.class_subset=[8, 3, 5]",
        f"teacher={teacher}",
        "teacher_train.epochs=10",
        "objectives={kd: {}}",
        "train.epochs=20",
        "seeds=[0]",
        "baselines=[]",
    )
    assert doctor(recipe)["problems"] == []
    content = run_of(recipe, tmp_path / "run")
    # Without labels, the student can only have the order of the classes from the teacher's names.
    assert content["distilled"]["accuracy"]["mean"] > 0.8


def test_a_head_grows_before_the_student_is_compressed(tmp_path: Path) -> None:
    changed = "{model: previous, grow_head: true, changes: {quantized: {}}}"
    recipe = continual(f"stages.1.student={changed}", "seeds=[0]", "train.epochs=1")
    content = run_of(recipe, tmp_path / "run")
    assert content["classes"] == [*"0123456789"]


def test_stages_with_the_same_data_share_it() -> None:
    experiment = Experiment.from_recipe(continual("stages=[{}, {student: previous}]"))
    assert all(stage.splits is experiment.splits for stage in experiment.stages)


def test_class_keys_do_not_change_the_file_of_a_trained_teacher() -> None:
    teacher = continual("stages=[]", "teacher={model: cnn}", "data.test_classes=null")
    same = continual("stages=[]", "teacher={model: cnn}", "data.class_subset=[0,1,2,3,4,5,6,7,8,9]")
    fewer = continual("stages=[]", "teacher={model: cnn}", "data.class_subset=[0,1]")
    paths = []
    for recipe in (teacher, same, fewer):
        experiment = Experiment.from_recipe(recipe)
        paths.append(cache_path(experiment, recipe.teachers[0], 0))
    assert paths[0] == paths[1] != paths[2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["data.test_stages=seen"],
            r"^stages\.0\.data\.test_stages: seen has the test samples of all stages",
        ),
        (
            ["stages.1.student=previous"],
            r"^stages\.1\.student: the student of the earlier stage has no output for classes 5, 6",
        ),
        (
            ["stages.1.teacher=previous"],
            r"^stages\.1\.teacher: previous has 5 classes \(0, 1, 2, 3, 4\)\. Expected the 10 of",
        ),
        (
            ["student.grow_head=true"],
            r"^student: grow_head: only a student of an earlier stage",
        ),
        (
            ["stages.1.data.class_subset=[5, six]"],
            r"^stages\.1\.data\.class_subset: unknown class 'six'",
        ),
        (
            ["stages.0.data.test_classes=[0, 9]"],
            r"^stages\.0\.data\.test_classes: the student has no output for class 9",
        ),
        (["stages.2.data.look=blue"], r"^stages\.2\.data\.look: "),
        (["stages.2.data.name=digit_graph"], r"^stages\.2\.data\.look: unknown option"),
        (
            ["stages.2.data={name: digit_scenes}"],
            r"^stages\.2\.student: .* no output for class background",
        ),
        (
            ["stages.1.teacher=[{model: previous, shared_classes: true}, stage:low]"],
            r"^stages\.1\.teacher: stage:low has 5 classes",
        ),
        (
            ["baselines=[pseudo_labels]"],
            r"^baselines\.0: pseudo_labels learns from a teacher, but the stages have different",
        ),
        (
            ["store={path: outputs}"],
            r"^store: recorded outputs belong to one set of samples",
        ),
        (
            ["stages.1.scheme=ema"],
            r"^stages\.1\.teacher\.shared_classes: the scheme ema may read all classes",
        ),
        (
            ["stages.1.student.model=mlp"],
            r"^stages\.1\.student: grow_head: only a student of an earlier stage",
        ),
    ],
)
def test_wrong_combinations_are_errors_before_training(
    changes: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        run_of(continual(*changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
