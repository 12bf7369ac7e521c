"""Point sets in recipes: a dense teacher of a sparse student, other inputs, wrong data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import instil
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.plan.doctor import doctor
from instil.recipe import RecipeError
from tests.experiment.small import recipe, run_of

RECIPE: dict[str, Any] = {
    "task": "point_classification",
    "data": {
        "name": "npz:shapes.npz",
        "columns": {"points": "xyz", "label": "shape", "depth": "depth"},
        "batch_size": 20,
        "augment": {"rotate": 180, "shuffle": True},
    },
    "teacher": {"model": "pointnet", "options": {"width": 8}},
    "student": {"model": "pointnet", "options": {"width": 4}, "input": {"points": 6}},
    "objectives": {"kd": {}, "fitnet": {}, "similarity_preserving": {}},
    "train": {"epochs": 15, "optimizer": {"lr": 1e-2}},
    "seeds": [0],
    "export": True,
}


def arrays() -> dict[str, Any]:
    """Sets of 24 points on a flat or a tall ellipsoid, and depth images."""
    generator = np.random.default_rng(0)
    shape = np.arange(100) % 2
    xyz = generator.standard_normal((100, 24, 3)).astype(np.float32)
    xyz[..., 2] *= np.where(shape, 3, 0.3)[:, None]
    depth = generator.random((100, 1, 6, 6)).astype(np.float32) + shape[:, None, None, None]
    return {"xyz": xyz, "shape": shape, "depth": depth / 2}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    np.savez("shapes.npz", **arrays())
    return tmp_path


def test_a_teacher_of_all_points_teaches_a_student_of_a_few(folder: Path) -> None:
    points = recipe("baselines=[alone]", **RECIPE)
    assert doctor(points)["problems"] == []
    result = run_of(points, folder / "run")
    assert result["distilled"]["accuracy"]["mean"] > 0.9
    assert result["export"]["onnx"]["accuracy"] == result["distilled"]["accuracy"]["mean"]
    student = instil.load(folder / "run")
    batch = Experiment.from_recipe(student.recipe).splits.test.__getitems__(range(5))
    assert student(batch["points"]).shape == (5, 2)
    with pytest.raises(ValueError, match=r"points: wrong shape\. Expected \(N, 24, 3\)"):
        student(batch["points"][:, :20])


def test_the_student_sees_a_subset_of_the_points_that_the_teacher_sees(folder: Path) -> None:
    experiment = Experiment.from_recipe(recipe(**RECIPE))
    sections = (experiment.recipe.teachers[0], experiment.recipe.student)
    teacher, student = (build_network(section, experiment, "net") for section in sections)
    batch = next(iter(experiment.loader(experiment.train_data(0), 0)))
    teacher_points, student_points = (net(batch)["positions"] for net in (teacher, student))
    assert teacher_points.shape[1:] == (24, 3)
    assert student_points.shape[1:] == (6, 3)
    distances = torch.cdist(student_points, teacher_points)
    assert distances.amin(2).max() < 1e-3
    original = experiment.splits.train.inputs(batch["index"])["points"]
    assert not torch.equal(original, batch["points"]), "the points were not turned"


def test_a_teacher_of_images_teaches_a_student_of_points(folder: Path) -> None:
    cross_modal = RECIPE | {
        "teacher": {"model": "cnn", "options": {"width": 2}, "reads": {"points": "depth"}},
        "objectives": {"kd": {}},
    }
    assert doctor(recipe(**cross_modal))["problems"] == []
    with pytest.raises(RecipeError, match=r"fitnet: .*only the student returns positions of"):
        run_of(recipe(**cross_modal | {"objectives": {"fitnet": {}}}), folder / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"xyz": np.full((100, 24, 3), np.nan, np.float32)}, "row 0 has NaN"),
        ({"xyz": np.zeros((100, 0, 3), np.float32)}, "at least one point"),
        ({"xyz": np.zeros((100, 24, 2), np.float32)}, "coordinates x, y and z first"),
        ({"xyz": np.zeros((100, 3, 24), np.int64)}, "Expected floating-point numbers"),
    ],
)
def test_wrong_points_raise_before_training(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    np.savez("shapes.npz", **arrays() | changes)
    with pytest.raises(RecipeError, match=f"shapes.npz: points: .*{message}"):
        run_of(recipe(**RECIPE), folder / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("student.input.points=25", "input.points: too many. Expected at most the 24 points"),
        ("data.augment.rotate=200", "data.augment.rotate"),
        ("data.augment.crop=1", "data.augment.crop"),
        ("data.columns.points=xy", r"columns\.points: no array 'xy'.*xyz"),
    ],
)
def test_wrong_options_raise_before_training(folder: Path, change: str, message: str) -> None:
    with pytest.raises((RecipeError, ValueError), match=message):
        run_of(recipe(change, **RECIPE), folder / "run")
