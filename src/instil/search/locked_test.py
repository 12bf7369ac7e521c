"""Lock of the test split during a search."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NoReturn

from instil.experiment.experiment import Experiment
from instil.experiment.sample_digest import sample_digest
from instil.recipe import fingerprint

FINALISTS = "finalists.json"
"""File that a search writes when its choices are made."""


def hash_test(experiment: Experiment) -> str:
    """Return the fingerprint of the test samples of an experiment."""
    return fingerprint(sample_digest(experiment.splits.test))


class LockedTestError(Exception):
    """The test split was read before the finalists of a search were chosen."""


class LockedSamples:
    """Placeholder of the test split. Every use raises ``LockedTestError``."""

    def __getattr__(self, name: str) -> NoReturn:
        _refuse()

    def __len__(self) -> int:
        _refuse()

    def __iter__(self) -> NoReturn:
        _refuse()

    def __getitem__(self, index: Any) -> NoReturn:
        _refuse()


def _refuse() -> NoReturn:
    raise LockedTestError(
        "test split: read before the finalists are chosen. Expected choices on validation data"
    )


class TestLock:
    """Experiment of a search without its test split, until the finalists are chosen.

    Args:
        experiment: experiment of the recipe.
        folder: folder of the search.

    Attributes:
        experiment: the experiment with ``LockedSamples`` as test split.
    """

    __test__ = False  # not a test class of pytest

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        self._folder = folder
        self._complete = experiment
        locked: Any = LockedSamples()
        data = tuple(
            dataclasses.replace(
                stage, splits=dataclasses.replace(stage.splits, test=locked), own_test=locked
            )
            for stage in experiment.data_of_stages
        )
        self.experiment = dataclasses.replace(
            experiment, splits=data[-1].splits, data_of_stages=data
        )

    def hash_test(self) -> str:
        """Return the fingerprint of the test samples, which no choice depends on."""
        return hash_test(self._complete)

    def open(self) -> Experiment:
        """Return the experiment with the test split.

        Raises:
            LockedTestError: before the finalists are chosen.
        """
        if not (self._folder / FINALISTS).exists():
            _refuse()
        return self._complete
