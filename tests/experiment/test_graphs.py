"""Graphs in recipes: GLNN, position features of NOSMOG, CPF, and a teacher of the user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import instil
from instil.data.sources.pixel_graphs import pixel_graphs
from instil.experiment.experiment import Experiment
from instil.plan.doctor import doctor
from instil.recipe.errors import RecipeError
from tests.experiment.small import recipe, run_of

RECIPE: dict[str, Any] = {
    "task": "node_classification",
    "data": {"name": "graph_npz:g.npz", "batch_size": 60},
    "teacher": {"model": "gcn", "options": {"width": 8}},
    "student": {"model": "mlp", "options": {"width": 8}},
    "objectives": {"kd": {"temperature": 1}},
    "train": {"epochs": 25, "optimizer": {"lr": 3e-2}},
    "seeds": [0],
    "export": False,
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A graph of two communities whose features are noisy and whose edges are not."""
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    label = np.arange(120) % 2
    features = generator.normal(size=(120, 6)) + 0.7 * label[:, None]
    pairs = generator.integers(0, 60, (2, 400)) * 2
    edges = pairs + generator.integers(0, 2, 400)
    np.savez("g.npz", x=features, edge_index=edges, y=label, split=np.arange(120) // 2 % 3)
    return tmp_path


def test_a_perceptron_learns_from_all_nodes(folder: Path) -> None:
    assert doctor(recipe(**RECIPE))["problems"] == []
    result = run_of(recipe(**RECIPE), folder / "run")
    assert result["distilled"]["accuracy"]["mean"] > 0.65
    assert {"alone", "label_smoothing", "pseudo_labels"} <= set(result)


def test_a_perceptron_reads_position_features(folder: Path) -> None:
    sections = RECIPE | {
        "data": RECIPE["data"] | {"positions": 4},
        "student": {"model": "mlp", "options": {"width": 8}, "reads": {"x": "x_positions"}},
        "objectives": {"kd": {"temperature": 1}, "gsp": {}},
    }
    result = run_of(recipe("baselines=[alone]", **sections), folder / "run")
    assert result["distilled"]["accuracy"]["mean"] > 0.9, "the positions show the communities"


def test_the_student_of_cpf_reads_training_labels(folder: Path) -> None:
    sections = RECIPE | {
        "data": RECIPE["data"] | {"label_prior": True},
        "student": {"model": "cpf", "options": {"width": 8}},
    }
    result = run_of(recipe("baselines=[alone]", **sections), folder / "run")
    assert result["distilled"]["accuracy"]["mean"] > 0.8


def test_sampled_neighbours_train_teacher_and_student(folder: Path) -> None:
    sections = RECIPE | {"data": RECIPE["data"] | {"fanout": 3}}
    result = run_of(recipe("baselines=[alone]", **sections), folder / "run")
    assert result["distilled"]["accuracy"]["mean"] > 0.65


def test_whole_graphs_are_classified_and_predicted(folder: Path) -> None:
    sections = {
        "task": "graph_classification",
        "data": {"name": "pixel_graphs", "num_labeled": 200, "batch_size": 100},
        "teacher": {"model": "gin", "options": {"width": 16, "depth": 2}},
        "student": {"model": "gin", "options": {"width": 8, "depth": 1}},
        "objectives": {"kd": {}},
        "train": {"epochs": 3, "optimizer": {"lr": 1e-2}},
        "seeds": [0],
    }
    assert doctor(recipe(**sections))["problems"] == []
    result = run_of(recipe("baselines=[alone]", **sections), folder / "run")
    assert result["teacher"]["accuracy"]["mean"] > 0.2
    batch = pixel_graphs().test.__getitems__(range(7))
    predicted = instil.load(folder / "run").predict(batch)
    assert len(predicted) == 7
    assert set(predicted) <= set("0123456789")


def test_a_wrong_graph_is_an_error_before_training(folder: Path) -> None:
    wrong = RECIPE | {"data": {"name": "graph_npz:g.npz", "edges": "edge_indx"}}
    with pytest.raises(RecipeError, match=r"edges: no array 'edge_indx'.*Did you mean edge_index"):
        Experiment.from_recipe(recipe(**wrong))
