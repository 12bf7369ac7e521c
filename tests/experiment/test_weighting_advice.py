"""Recipes with and without advice on unsuitable weightings."""

from __future__ import annotations

import pytest

from instil import recipe as recipes
from instil.experiment.experiment import Experiment
from instil.experiment.weighting_advice import weighting_advice

LABELLED = "objectives.cross_entropy.average=labelled"


def advice(*overrides: str) -> list[str]:
    return weighting_advice(Experiment.from_recipe(recipes.load("digits", overrides)))


def test_few_labels_that_weigh_as_much_as_the_batch() -> None:
    (sentence,) = advice(LABELLED)
    assert sentence.startswith("objectives.cross_entropy.average: labelled gives 100 labels of ")
    assert sentence.endswith("(docs/defaults.md). Use average: batch")


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        [LABELLED, "data.num_labeled=null"],
        [LABELLED, "objectives.kd=null"],
    ],
    ids=["the default", "all labels", "labels alone"],
)
def test_weightings_without_advice(overrides: list[str]) -> None:
    assert advice(*overrides) == []


def test_only_losses_with_a_choice_get_advice() -> None:
    assert advice("objectives.dkd={}") == []
