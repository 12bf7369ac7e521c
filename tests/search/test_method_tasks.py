"""Tasks whose methods a search tries for another task."""

from __future__ import annotations

import pytest

from instil import recipe as recipes
from instil.experiment.experiment import Experiment
from instil.search.arms import candidate_arms, reference_arms
from instil.search.candidates import card_mismatch

RECIPES = {
    "point_classification": ["alone", "label_smoothing", "pseudo_labels", "kd"],
    "multi_view_classification": ["alone", "label_smoothing", "pseudo_labels", "kd"],
    "segmentation": ["alone", "pseudo_labels", "kd"],
}


@pytest.mark.parametrize("name", list(RECIPES))
def test_methods_of_classification_are_candidates_of_related_tasks(name: str) -> None:
    experiment = Experiment.from_recipe(recipes.load(name, []))
    references = list(reference_arms(experiment.recipe, experiment.task))
    assert [arm.name for arm in references] == RECIPES[name]
    candidates = candidate_arms(experiment.recipe, experiment.task, ["dist", "ctc_kd"])
    reasons = {arm.name: card_mismatch(arm, experiment) for arm in candidates}
    assert reasons == {"dist": "", "ctc_kd": f"defined for speech_recognition, not for {name}"}
