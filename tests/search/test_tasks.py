"""A search trains a round for recipes of every task."""

from __future__ import annotations

from pathlib import Path

import pytest

from instil import recipe as recipes
from instil.search.search import Settings, start
from tests.recipe_sizes import small_data
from tests.search.recipes import silent

KD_FITS = {
    "audio_classification",
    "cross_modal",
    "detection",
    "graph_classification",
    "language",
    "link_prediction",
    "multi_view_classification",
    "node_classification",
    "point_classification",
    "ranking",
    "recommendation",
    "segmentation",
    "seq2seq",
    "speaker_verification",
    "tabular_classification",
    "text_classification",
    "video_classification",
}
"""Recipes in which ``kd`` is a reference arm, or the method of the recipe."""

CANDIDATES = {
    "detection": "cwd",
    "diffusion": "progressive",
    "image_text": "clip_feature",
    "link_prediction": "rank_distil",
    "ranking": "margin_mse",
    "recommendation": "rank_distil",
    "regression": "logit_mae",
    "representation": "seed",
    "segmentation": "cwd",
    "sentence_embedding": "embedding_regression",
    "speech_recognition": "ctc_kd",
    "tabular_regression": "regression_kd",
}
"""A method that fits each recipe; ``dist`` fits all recipes with classes."""

RECIPES = sorted(KD_FITS | set(CANDIDATES))


def tiny(name: str) -> recipes.Recipe:
    """Return a packaged recipe with few samples and two steps."""
    recipe = recipes.load(name)
    changes = ["train.epochs=null", "train.steps=2", "seeds=[0]", "baselines=[]", "export=false"]
    if recipe.teacher_train is not None:
        changes += ["teacher_train.epochs=null", "teacher_train.steps=2"]
    return recipes.load(name, [*changes, *small_data(name)])


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_round_is_trained(name: str, tmp_path: Path) -> None:
    candidate = CANDIDATES.get(name, "dist")
    settings = Settings(candidates=(candidate, "mutual"), num_seeds=1)
    result = start(tiny(name), settings, tmp_path / "search", silent())
    arms = [arm["name"] for arm in result["arms"]]
    assert candidate in arms
    assert ("random_init" if name == "representation" else "alone") in arms
    assert list(result["refused"])[-1] == "mutual"
    # The recipe's own method is kd, or kd is a reference arm.
    assert (name in KD_FITS | {"representation"}) == ("kd" in arms)
    assert all(trial["status"] == "complete" for trial in result["trials"])
    assert {trial["round"] for trial in result["trials"]} == {0, -1}
    assert result["teacher"]["score"] is not None
