"""Several views in recipes: a teacher of all views, a student of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from instil.data.sources.npz import npz
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.plan.doctor import doctor
from instil.recipe import RecipeError
from tests.experiment.small import recipe, run_of

RECIPE: dict[str, Any] = {
    "task": "multi_view_classification",
    "data": {
        "name": "npz:parts.npz",
        "columns": {"views": "depth", "label": "part"},
        "batch_size": 20,
    },
    "teacher": {"model": "mvcnn", "options": {"width": 4}},
    "student": {"model": "cnn", "options": {"width": 4}, "input": {"views": 1}},
    "objectives": {"kd": {}},
    "train": {"epochs": 15, "optimizer": {"lr": 1e-2}},
    "seeds": [0],
    "export": True,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder with four depth images of 120 parts, dark or bright."""
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    part = np.arange(120) % 2
    depth = generator.integers(0, 100, (120, 4, 8, 8), dtype=np.uint8)
    depth += (100 * part[:, None, None, None]).astype(np.uint8)
    np.savez("parts.npz", depth=depth, part=part)
    return tmp_path


def test_a_teacher_of_four_views_teaches_a_student_of_one(folder: Path) -> None:
    views = recipe("baselines=[alone]", **RECIPE)
    assert doctor(views)["problems"] == []
    result = run_of(views, folder / "run")
    assert result["distilled"]["accuracy"]["mean"] > 0.9
    assert result["export"]["onnx"]["accuracy"] == result["distilled"]["accuracy"]["mean"]


def test_the_view_of_the_student_is_one_of_the_teachers(folder: Path) -> None:
    experiment = Experiment.from_recipe(recipe(**RECIPE))
    student = build_network(experiment.recipe.student, experiment, "student")
    batch = experiment.splits.test.__getitems__(range(3))
    view = student.eval()(batch)["view_logits"]
    assert view.shape == (3, 1, 2)
    torch.testing.assert_close(view[:, 0], student.model(batch["views"][:, 2]))


def test_a_student_of_two_views_can_learn_to_be_consistent(folder: Path) -> None:
    consistent = RECIPE | {
        "student": RECIPE["student"] | {"input": {"views": 2}},
        "objectives": {"kd": {}, "view_consistency": {}},
    }
    assert doctor(recipe(**consistent))["problems"] == []
    one = consistent | {"student": RECIPE["student"]}
    with pytest.raises((RecipeError, ValueError), match=r"student\.input\.views to 2 or more"):
        run_of(recipe(**one), folder / "run")


def test_too_many_views_raise_before_training(folder: Path) -> None:
    with pytest.raises((RecipeError, ValueError), match="at most the 4 views of the data, got 5"):
        run_of(recipe("student.input.views=5", **RECIPE), folder / "run")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((6, 4, 8, 8), (6, 4, 1, 8, 8)),
        ((6, 4, 8, 8, 3), (6, 4, 3, 8, 8)),
        ((6, 5, 3, 8, 8), (6, 5, 3, 8, 8)),
    ],
)
def test_layouts_of_views(folder: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    np.savez("views.npz", views=np.full(shape, 255, np.uint8), label=np.arange(6) % 2)
    data = npz("views.npz", columns={"views": "views", "label": "label"}, validation=0.4, test=0.4)
    views = data.test.inputs(torch.arange(1))["views"]
    assert views.shape[1:] == expected[1:]
    assert views.max() == 1
    assert data.train.facts["channels"] == expected[2]
    assert data.train.facts["size"] == 8


@pytest.mark.parametrize(
    ("views", "message"),
    [
        (np.zeros((6, 4, 8)), r"wrong shape.*got \(6, 4, 8\)"),
        (np.zeros((6, 0, 8, 8)), r"wrong shape.*at least one view, got \(6, 0, 1, 8, 8\)"),
        (np.full((6, 4, 8, 8), np.nan), "row 0 has NaN or infinite values"),
    ],
)
def test_wrong_views_raise(folder: Path, views: np.ndarray, message: str) -> None:
    np.savez("views.npz", views=views, label=np.arange(6) % 2)
    with pytest.raises(ValueError, match=rf"views.npz: columns\.views: {message}"):
        npz("views.npz", columns={"views": "views", "label": "label"})
