"""Folder of a search: what a new one may contain, and inputs that must not change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from instil.experiment.experiment import Experiment
from instil.experiment.sample_digest import sample_digest
from instil.files.folders import check_folder
from instil.files.locks import FileLock
from instil.plan.fingerprints import (
    VERSION_INPUT,
    code_fingerprints,
    opened_splits,
    side_data_fingerprints,
)
from instil.recipe import build, fingerprint
from instil.recipe.sections import Recipe
from instil.search.arms import Arm, base_data
from instil.search.locked_test import hash_test
from instil.search.state import STATE, State

LEFTOVERS = ("work", "teachers")
"""Folders that a search leaves which ended before it wrote its state."""


def check_new(folder: Path) -> None:
    """Check that a new search may use a folder.

    Args:
        folder: folder of the search; it need not exist.

    Raises:
        FileExistsError: if it has files.
        NotADirectoryError: if it, or a part of its path, is a file.
    """
    check_folder(folder)
    if not folder.exists():
        return
    if (folder / STATE).exists():
        raise FileExistsError(
            f"--out: {folder} already holds a search. Expected a new folder, or --resume {folder}"
        )
    if other := sorted(path.name for path in folder.iterdir() if path.name not in LEFTOVERS):
        raise FileExistsError(
            f"--out: {folder} is not empty. Expected a new or an empty folder, got one with "
            f"'{other[0]}'. Use another --out"
        )


@contextmanager
def starting(folder: Path) -> Iterator[None]:
    """Keep other processes from starting a search in the folder until its state is written.

    Raises:
        FileExistsError: if another process is starting one.
    """
    lock = FileLock(folder / "work/start.lock")
    if not lock.try_acquire():
        raise FileExistsError(
            f"--out: another process is starting a search in {folder}. Expected a new folder. "
            f"Share its search later with --resume {folder}, or use another --out"
        )
    try:
        yield
    finally:
        lock.release()


def hash_data(experiment: Experiment, arms: Sequence[Arm] = ()) -> str:
    """Return the fingerprint of the training and validation samples that a search reads.

    Of training images that ``data.surrogate`` replaces, only their number counts.

    Args:
        experiment: experiment of the recipe of the search.
        arms: arms of the search, whose teachers may be trained on the training samples.
    """
    splits = experiment.splits
    base = base_data(experiment.recipe)
    recipes = [build(base | arm.changes) for arm in arms if arm.kind == "teacher"]
    experiments = [experiment, *(replace(experiment, recipe=recipe) for recipe in recipes)]
    is_read = any("train" in opened_splits(one) for one in experiments)
    train = sample_digest(splits.train) if is_read else len(splits.train)
    return fingerprint(train, sample_digest(splits.validation))


def hash_recipe(recipe: Recipe) -> str:
    """Return the fingerprint of a recipe, without its folder and device."""
    return fingerprint(recipe.model_dump(mode="json", exclude={"folder", "device"}))


def hash_inputs(experiment: Experiment, arms: Sequence[Arm]) -> dict[str, str]:
    """Return the fingerprints of all that a recipe reads, apart from its data, by description.

    These are modules of the user, networks and weights, and the data of ``teacher.data`` and
    ``data.surrogate``.

    Args:
        experiment: experiment of the recipe of the search.
        arms: arms of the search; teachers and students have modules and files of their own.
    """
    hashes = code_fingerprints(experiment.recipe) | side_data_fingerprints(experiment)
    base = base_data(experiment.recipe)
    for arm in arms:
        if arm.kind not in ("teacher", "student"):
            continue
        own = replace(experiment, recipe=build(base | arm.changes))
        own_hashes = code_fingerprints(own.recipe)
        if arm.kind == "teacher":
            own_hashes |= side_data_fingerprints(own)
        for key, value in own_hashes.items():
            if key.startswith(arm.kind):
                hashes[f"{arm.name}: {key}"] = value
    return hashes


def check_unchanged(state: State, experiment: Experiment, folder: Path) -> None:
    """Check that the trainings of a stopped search are comparable with new ones.

    Args:
        state: state of the search. One of an earlier version has no fingerprint of the recipe.
        experiment: experiment of the recipe in the folder.
        folder: folder of the search.

    Raises:
        ValueError: if the recipe, code of the user or the data have changed since the start.
    """
    if state.recipe_hash not in ("", hash_recipe(experiment.recipe)):
        raise ValueError(
            f"--resume: {folder / 'recipe.yaml'} was edited after the start of the search. "
            "Expected the recipe of its finished trainings. Restore the file, or start a new search"
        )
    hashes = hash_inputs(experiment, state.arms)
    # A search of an earlier version lacks some; without that of the outputs, they may differ.
    before = {VERSION_INPUT: "", **state.input_hashes}
    if changed := [name for name, value in before.items() if hashes.get(name) != value]:
        raise ValueError(
            f"--resume: {changed[0]} has changed since the start of the search. Expected that of "
            "its finished trainings. Restore it, or start a new search"
        )
    # A search of an earlier version has no fingerprint of the test samples. Final trainings before
    # and after a change of them would be compared on different samples.
    is_other_test = state.test_hash not in ("", hash_test(experiment))
    if is_other_test or state.data_hash != hash_data(experiment, state.arms):
        raise ValueError(
            f"--resume: the data of {folder} have changed since the start of the search. Expected "
            "those of its finished trainings. Restore the data, or start a new search"
        )
