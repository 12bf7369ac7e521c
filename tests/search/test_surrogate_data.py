"""Fingerprints of training images that ``data.surrogate`` replaces, and of shared sources."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instil.experiment.experiment import Experiment
from instil.search.arms import Arm
from instil.search.folder import hash_data, hash_inputs
from instil.search.locked_test import LockedSamples, LockedTestError
from instil.search.search import Settings, start
from tests.search.recipes import continue_search, recipe, silent


def images(file: Path, seed: int = 0) -> dict[str, Any]:
    """Write a source of images and return its section, without training images of its own."""
    chance = np.random.default_rng(seed)
    np.savez(file, image=chance.random((90, 8, 8), np.float32), label=np.arange(90) % 10)
    return {"name": f"npz:{file}"}


class UnreadSamples(LockedSamples):
    """Training samples that must not be read; they have a length."""

    def __len__(self) -> int:
        return 60


@pytest.mark.parametrize("is_trained", [False, True])
def test_training_images_that_are_replaced_are_not_read(is_trained: bool, tmp_path: Path) -> None:
    """The teacher has weights, or is trained on data of its own."""
    surrogate = images(tmp_path / "own.npz")
    teacher: dict[str, Any] = {"model": "networks:mlp", "options": {"width": 32}}
    teacher |= {"data": surrogate} if is_trained else {"is_trained": True}
    own = recipe(
        data={"name": "digits", "surrogate": surrogate}, teacher=teacher, objectives={"kd": {}}
    )
    experiment = Experiment.from_recipe(own)
    unread: Any = UnreadSamples()
    closed = replace(experiment, splits=replace(experiment.splits, train=unread))
    digest = hash_data(closed)
    assert digest == hash_data(closed)
    # A teacher of an arm may be trained on them.
    arm = Arm("other", "teacher", False, {"teacher": teacher | {"data": None, "is_trained": False}})
    assert hash_data(experiment, [arm]) != hash_data(experiment)
    with pytest.raises(LockedTestError):
        hash_data(closed, [arm])


def test_replaced_training_images_may_change(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    image = chance.random((90, 8, 8), np.float32)
    split = np.arange(90) % 3
    arrays = {"label": np.arange(90) % 10, "split": split}
    np.savez(tmp_path / "own.npz", image=image, **arrays)
    other = images(tmp_path / "other.npz")
    teacher = {"model": "networks:mlp", "options": {"width": 32}, "data": other}
    data = {"name": f"npz:{tmp_path / 'own.npz'}", "surrogate": other}
    own = recipe(data=data, teacher=teacher, objectives={"kd": {}})
    start(own, Settings(candidates=("dist",), num_seeds=1), tmp_path / "out", silent())
    image[split == 0] = 0
    np.savez(tmp_path / "own.npz", image=image, **arrays)
    continue_search(tmp_path / "out")
    image[split == 1] = 0
    np.savez(tmp_path / "own.npz", image=image, **arrays)
    with pytest.raises(ValueError, match=r"the data of .* have changed"):
        continue_search(tmp_path / "out")


def test_one_source_of_teacher_and_surrogate_images(tmp_path: Path) -> None:
    """It is loaded once, and both sections have its fingerprint."""
    source = images(tmp_path / "other.npz")
    teacher = {"model": "networks:mlp", "options": {"width": 32}, "data": source}
    data = {"name": "digits", "surrogate": source}
    own = recipe(data=data, teacher=teacher, objectives={"kd": {}})
    outcome = start(own, Settings(candidates=("dist",), num_seeds=1), tmp_path / "out", silent())
    assert {trial["status"] for trial in outcome["trials"]} == {"complete"}
    experiment = Experiment.from_recipe(own)
    hashes = hash_inputs(experiment, ())
    assert len(experiment.sources) == 1
    state = json.loads((tmp_path / "out/study.json").read_text())
    for path in ("teacher.data", "data.surrogate"):
        assert state["input_hashes"][path] == hashes[path]
    images(tmp_path / "other.npz", seed=1)
    with pytest.raises(ValueError, match=r"--resume: (data\.surrogate|teacher\.data) has changed"):
        continue_search(tmp_path / "out")
