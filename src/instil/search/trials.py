"""Trials of a search and the files of their results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from instil.files.atomic import atomic
from instil.files.checksums import (
    JSON_KEY,
    DamagedFileError,
    json_with_checksum,
    read_json_with_checksum,
)
from instil.recipe import build, fingerprint
from instil.search.arms import Arm, arm_recipe
from instil.search.finite import finite_result

TRIALS = "trials"
"""Folder of the results of all trials."""

NUM_EVALUATIONS = 4
"""Evaluations on the validation data during a trial, unless they choose weights or its end."""


@dataclass(frozen=True)
class Trial:
    """One training of an arm.

    Attributes:
        arm: name of the arm.
        method: name of a baseline, or ``distilled``.
        round: index of the round; -1 for a final training.
        params: searched values by path.
        num_steps: optimizer steps.
        seed: seed of the training.
        recipe: plain data of the recipe.
        rivals: validation scores of earlier trials of the same round by step, which the trial is
            compared with during its training; it stops early if it is far behind.
        key: fingerprint of all that the result depends on.
        has_int8: whether a final training also evaluates the student in int8.
        num_folds: trainings on folds of the labelled samples, whose mean is the score; 1: one
            training with all of them.
    """

    arm: str
    method: str
    round: int
    params: dict[str, Any]
    num_steps: int
    seed: int
    recipe: dict[str, Any]
    rivals: list[list[list[float]]] = field(default_factory=list)
    key: str = ""
    has_int8: bool = False
    num_folds: int = 1

    @property
    def is_final(self) -> bool:
        """Whether the trial is trained after all choices and evaluated on the test split."""
        return self.round < 0

    def to_json(self) -> dict[str, Any]:
        """Return the trial as plain data."""
        data = asdict(self)
        # Left out by default, so that searches of earlier versions keep their keys.
        if not self.has_int8:
            del data["has_int8"]
        if self.num_folds == 1:
            del data["num_folds"]
        return data


def make_trial(
    base: Mapping[str, Any],
    arm: Arm,
    params: Mapping[str, Any],
    round_index: int,
    num_steps: int,
    seed: int,
    data_hash: str,
    rivals: list[list[list[float]]] | None = None,
    num_folds: int = 1,
) -> Trial:
    """Build a trial.

    Args:
        base: plain data of the recipe.
        arm: the arm.
        params: searched values by path.
        round_index: index of the round; -1 for a final training.
        num_steps: optimizer steps.
        seed: seed of the training.
        data_hash: fingerprint of the samples.
        rivals: validation scores of earlier trials of the round.
        num_folds: folds of the labelled samples, for a trial that is not final.
    """
    if num_folds > 1:
        # The training of one fold does not know the mean score of the others.
        rivals = None
    data = arm_recipe(base, arm, params)
    data["train"] = data["train"] | {
        "schedule": _schedule_in_steps(data["train"]),
        "epochs": None,
        "steps": num_steps,
        "evaluate_steps": _evaluation_steps(data["train"], num_steps),
        # A killed trial is trained again from its start, which gives the same result.
        "checkpoint_every": None,
        "checkpoint_steps": None,
        "checkpoint_minutes": None,
        "log_steps": None,
    }
    data["seeds"] = [seed]
    # Without the candidates, on which no training depends: keys of earlier versions stay valid.
    recipe = build(data).model_dump(mode="json", exclude={"search"})
    trial = Trial(
        arm.name,
        arm.method,
        round_index,
        dict(params),
        num_steps,
        seed,
        recipe,
        rivals or [],
        has_int8=round_index < 0 and bool(arm.costs.get("int8")),
        num_folds=1 if round_index < 0 else num_folds,
    )
    return Trial(**{**trial.to_json(), "key": fingerprint(trial.to_json(), data_hash)})


def _evaluation_steps(train: Mapping[str, Any], num_steps: int) -> int | None:
    """Return the steps between evaluations of a trial; None: it has those of each epoch.

    Where evaluations choose the weights or end a training, a trial has those of the recipe: the
    best of fewer evaluations is another student.
    """
    if train["keep"] == "last" and train["early_stopping"] is None:
        return max(1, num_steps // NUM_EVALUATIONS)
    epochs, steps, every = train["epochs"], train["steps"], train["evaluate_steps"]
    if every is not None:
        own: int = every if steps is None else max(1, num_steps * every // steps)
        return own
    return None if epochs is None else max(1, num_steps * train["evaluate_every"] // epochs)


def _schedule_in_steps(train: Mapping[str, Any]) -> Any:
    """Return the schedule of a training whose length is set in steps instead of epochs.

    The options of a schedule of torch keep counting the epochs of the recipe. A shorter trial goes
    through the whole schedule, as it does with ``cosine``.
    """
    schedule, epochs = train["schedule"], train["epochs"]
    counts_epochs = isinstance(schedule, Mapping) and schedule.get("interval") != "step"
    if epochs is None or not counts_epochs:
        return schedule
    return {"length": epochs, **schedule}


def result_file(folder: Path, key: str) -> Path:
    """Return the file of the result of a trial."""
    return folder / TRIALS / f"{key}.json"


def write_result(folder: Path, result: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """Write the result of a trial with a checksum.

    Args:
        folder: folder of the search.
        result: result of the trial.
        metric: headline metric.

    Returns:
        The result as it was written, see ``finite_result``.
    """
    finite = finite_result(result, metric)
    with atomic(result_file(folder, finite["key"])) as temporary:
        temporary.write_text(json_with_checksum(finite), encoding="utf-8")
    return finite


def read_result(folder: Path, trial: Trial) -> dict[str, Any] | None:
    """Return the result of a trial; None if it is not finished, or its file is damaged."""
    path = result_file(folder, trial.key)
    return read_result_file(path) if path.exists() else None


def read_result_file(path: Path) -> dict[str, Any] | None:
    """Return the result in a file; None if the file is damaged."""
    try:
        return read_json_with_checksum(path, "The trial is trained again")
    except DamagedFileError:
        return _without_checksum(path)


def _without_checksum(path: Path) -> dict[str, Any] | None:
    """Return a result of an earlier version, which has no checksum; None for a damaged file."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    is_earlier = isinstance(result, dict) and "status" in result and JSON_KEY not in result
    return result if is_earlier else None
