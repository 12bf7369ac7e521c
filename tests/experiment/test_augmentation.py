"""Augmentation that the task defines for its samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from instil.data.label_kinds import BoxData
from instil.experiment.augmentation import augmentation_for
from instil.experiment.experiment import Experiment
from instil.recipe import RecipeError, build

DETECTION: dict[str, Any] = {
    "task": "detection",
    "data": {"name": "digit_boxes", "batch_size": 40, "augment": {"flip": True}},
    "teacher": {"model": "detector"},
    "student": {"model": "detector"},
    "objectives": {"distribution_focal": {}},
    "train": {"epochs": 1},
}


def test_images_of_detection_are_mirrored_with_their_boxes() -> None:
    experiment = Experiment.from_recipe(build(DETECTION))
    train = experiment.splits.train
    batch = next(iter(experiment.loader(train)))
    plain = train.__getitems__(batch["index"])
    is_mirrored = (batch["image"] != plain["image"]).flatten(1).any(1)
    assert 5 < int(is_mirrored.sum()) < 35
    assert torch.equal(batch["image"][is_mirrored], plain["image"][is_mirrored].flip(3))
    assert torch.equal(batch["box"][~is_mirrored], plain["box"][~is_mirrored])
    right = 16 - plain["box"][is_mirrored][:, 2]
    assert torch.equal(batch["box"][is_mirrored][:, 0], right)
    # The box still holds the digit: in both images it covers the same pixels.
    for index in is_mirrored.nonzero().flatten()[:3].tolist():
        left, top, edge, bottom = batch["box"][index].long().tolist()
        inside = batch["image"][index, :, top:bottom, left:edge]
        left, top, edge, bottom = plain["box"][index].long().tolist()
        assert torch.equal(inside, plain["image"][index, :, top:bottom, left:edge].flip(2))


def test_detection_has_no_shifts() -> None:
    changed = DETECTION | {"data": {"name": "digit_boxes", "augment": {"crop": 2}}}
    with pytest.raises(RecipeError, match=r"data\.augment.*crop"):
        Experiment.from_recipe(build(changed))


def test_pictures_that_are_not_mirrored_with_the_others_are_an_error() -> None:
    changed = DETECTION | {"student": {"model": "detector", "reads": {"image": "depth"}}}
    recipe = build(changed)
    samples = BoxData({}, [[[0, 0, 2, 2]]], [[0]], ["dog"])
    with pytest.raises(RecipeError, match=r"data\.augment.*image only.*reads depth"):
        augmentation_for(recipe, samples, None)
    recipe.student.reads = {}
    assert augmentation_for(recipe, samples, None) is not None
