"""Link prediction in recipes: arms, pseudo-labels, and wrong graphs before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instil.experiment.experiment import Experiment
from instil.plan.doctor import doctor
from instil.recipe.errors import RecipeError
from tests.experiment.small import recipe, run_of

NETWORK = {"model": "link_predictor"}
RECIPE: dict[str, Any] = {
    "task": "link_prediction",
    "data": {"name": "graph_links:g.npz", "eval_negatives": 20, "batch_size": 64},
    "teacher": NETWORK | {"options": {"encoder": "sage", "width": 8, "depth": 1}},
    "student": NETWORK | {"options": {"encoder": "mlp", "width": 8, "depth": 1}},
    "objectives": {"pair_cross_entropy": {}, "llp": {"temperature": 0.2}},
    "train": {"epochs": 5, "optimizer": {"lr": 3e-2}},
    "seeds": [0],
    "export": False,
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six communities with noisy features and edges inside them."""
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    community = np.arange(120) % 6
    features = np.eye(6)[community] * 1.5 + generator.normal(size=(120, 6))
    source = generator.integers(0, 120, 400)
    step = generator.integers(1, 20, 400) * 6
    np.savez("g.npz", x=features, edge_index=np.stack([source, (source + step) % 120]))
    return tmp_path


def test_a_perceptron_predicts_edges(folder: Path) -> None:
    assert doctor(recipe(**RECIPE))["problems"] == []
    result = run_of(recipe(**RECIPE), folder / "run")
    assert result["headline"] == "mrr"
    assert {"alone", "pseudo_labels"} <= set(result)
    assert result["teacher"]["auc"]["mean"] > 0.7
    distilled = result["distilled"]
    assert distilled["auc"]["mean"] > 0.6, "random scores have 0.5"
    assert distilled["hits"]["mean"] >= distilled["mrr"]["mean"] > 0.25


@pytest.mark.parametrize("objective", ["logit_mse", "kd", "embedding_regression", "rank_distil"])
def test_other_objectives_match_scores_or_embeddings(folder: Path, objective: str) -> None:
    sections = RECIPE | {"objectives": {objective: {}}, "train": {"epochs": 1}}
    result = run_of(recipe("baselines=[]", **sections), folder / "run")
    assert result["status"] == "complete"


def test_a_wrong_graph_is_an_error_before_training(folder: Path) -> None:
    wrong = RECIPE | {"data": {"name": "graph_links:g.npz", "edges": "edge_indx"}}
    with pytest.raises(RecipeError, match=r"edges: no array 'edge_indx'.*Did you mean edge_index"):
        Experiment.from_recipe(recipe(**wrong))
    np.savez("loop.npz", x=np.ones((3, 2)), edge_index=np.array([[0, 1], [1, 1]]))
    wrong = RECIPE | {"data": {"name": "graph_links:loop.npz"}}
    with pytest.raises(RecipeError, match=r"edge 1 joins node 1 to itself"):
        Experiment.from_recipe(recipe(**wrong))


def test_a_classifier_is_refused_before_training() -> None:
    with pytest.raises(RecipeError, match="student: mlp needs the option classes"):
        doctor(recipe(**RECIPE | {"student": "mlp"}))
