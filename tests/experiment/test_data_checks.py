"""Problems of data and weights that the doctor names, its counts and its estimate of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from instil.cli import main
from instil.experiment.data_checks import class_problems
from instil.experiment.experiment import Experiment
from instil.plan.doctor import doctor
from instil.recipe import load
from tests.experiment.small import recipe, run_of


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))


def archive(folder: Path, image: Any, label: Any, **arrays: Any) -> dict[str, Any]:
    np.savez(folder / "a.npz", image=image, label=label, **arrays)
    return {"name": f"npz:{folder / 'a.npz'}", "batch_size": 32}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.augment.crop=8"], "data.augment.crop: shifts of up to 8 pixels move images of 8 x"),
        (["data.num_labeled=4"], "data.num_labeled: with 4 labels 6 of 10 classes ("),
        (
            ["data.num_labeled=10", "data.batch_size=32"],
            "data.num_labeled: 10 of 1000 images have a label, 0.32 a batch, so that about 73 %",
        ),
    ],
)
def test_a_problem_is_named_with_its_place(changes: list[str], message: str) -> None:
    problems = doctor(recipe(*changes))["problems"]
    assert any(message in problem for problem in problems), problems


def test_few_labels_are_no_problem_for_losses_without_labels() -> None:
    report = doctor(
        recipe("data.num_labeled=10", "data.batch_size=32", "objectives.cross_entropy=null")
    )
    assert report["problems"] == []


def test_classes_without_images_are_named(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)
    split = np.arange(60) % 3
    label = np.arange(60) % 2
    data = archive(tmp_path, image, label, split=split, classes=np.array(["ant", "bee", "cow"]))
    problems = doctor(recipe(data=data))["problems"]
    assert "data: 1 of 3 classes (cow) has no image in train" in problems
    assert "data: 1 of 3 classes (cow) has no image in test" in problems
    warnings = run_of(recipe("seeds=[0]", data=data), tmp_path / "run")["warnings"]
    assert set(problems) <= set(warnings)


def test_classes_of_texts_that_are_compared_may_be_those_of_one_split() -> None:
    experiment = Experiment.from_recipe(load("sentence_embedding"))
    assert set(experiment.splits.train.label.tolist()) != set(experiment.splits.test.label.tolist())
    assert list(class_problems(experiment, experiment.samples)) == []


def test_equal_images_are_named(tmp_path: Path) -> None:
    image = np.full((60, 8, 8), 255, np.uint8)
    problems = doctor(recipe(data=archive(tmp_path, image, np.arange(60) % 2)))["problems"]
    assert any("images of the first batch are equal" in problem for problem in problems)


def test_shares_are_judged_with_a_trained_teacher_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = recipe("objectives.kd.weight=1e-6", "seeds=[0]", "baselines=[]")
    assert doctor(one)["problems"] == []
    run_of(one, tmp_path / "run")
    assert "objectives.kd: contributes only " in "".join(doctor(one)["problems"])


def test_counts_and_the_length_of_a_run() -> None:
    report = doctor(recipe("baselines=[alone]"))
    assert report["data"] == {
        "noun": "image",
        "kind": "single",
        "classes": 10,
        "student_labels": 100,
        "train": {"samples": 1000, "labelled": 1000},
        "validation": {"samples": 297, "labelled": 297},
        "test": {"samples": 500, "labelled": 500},
    }
    run = report["run"]
    assert (run["teachers"], run["cached"], run["trainings"]) == (1, 0, 5)
    student = report["stages"][0]["forecast"]["seconds"]
    assert run["teacher_seconds"] > 0
    alone = report["baselines"]["alone"]
    assert run["seconds"] == pytest.approx(run["teacher_seconds"] + 2 * student + 2 * alone)


def test_the_exit_code_reports_problems(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.yaml").write_text(
        "data: {name: digits, num_labeled: 100}\nteacher: cnn\nstudent: mlp\n"
        "objectives: {cross_entropy: null, kd: null}\nexport: false\nseeds: [0, 1]\n"
    )
    for change, code, expected in (
        ([], 0, "No problems found."),
        (["data.num_labeled=4"], 1, "Problem: data.num_labeled: with 4 labels 6 of 10 classes"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["doctor", "one.yaml", *change])
        captured = capsys.readouterr()
        out = " ".join(captured.out.split())
        assert captured.err == ""
        assert (ended.value.code or 0) == code
        assert expected in out
        assert "Data: images: train 1,000, validation 297, test 500; 10 classes; the student" in out
        assert "has 9 trainings: 1 teacher and 8 students (2 seeds x alone, label smoothing" in out
        assert "shares of the gradient are not checked" in out


def test_a_broken_image_of_the_test_split_is_reported(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for value, name in enumerate(("ant", "bee")):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for index in range(6):
                pixels = np.full((8, 8), 40 * value + index, np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / part / name / f"{index}.png")
    (tmp_path / "data/test/ant/empty.jpg").write_bytes(b"")
    data = {"name": f"folder:{tmp_path / 'data'}", "batch_size": 4}
    with pytest.raises(ValueError, match=r"test/ant/empty\.jpg cannot be read as a picture"):
        doctor(recipe(data=data))
    report = doctor(recipe(data={**data, "broken": "skip"}))
    assert report["notes"][0].startswith("1 broken picture is left out: ")


def test_a_small_validation_split_has_a_note(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (60, 8, 8), np.uint8)
    small = recipe("seeds=[0]", "baselines=[]", data=archive(tmp_path, image, np.arange(60) % 2))
    expected = "data: the validation split has 8 images, so that its accuracy changes in steps of"
    assert any(note.startswith(expected) for note in doctor(small)["notes"])
    warnings = run_of(small, tmp_path / "run")["warnings"]
    assert any(note.startswith(expected) for note in warnings)
    assert not any("validation" in note for note in doctor(recipe("baselines=[]"))["notes"])
