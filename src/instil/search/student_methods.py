"""Second phase of a search over students and methods: methods for students of the frontier."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console

from instil.files.locks import FileLock
from instil.recipe import build
from instil.search.arms import Arm, base_data
from instil.search.candidates import find_candidates
from instil.search.frontier import comparable_sizes, frontier
from instil.search.limits import smallest_file
from instil.search.planning import plan_search, rest_of_budget
from instil.search.quality_target import quality_target
from instil.search.rounds import Schedule
from instil.search.state import Settings, State
from instil.search.study import Study

METHODS = "methods.json"
"""State of the second phase."""


def methods_study(first: Study, arms: Sequence[Arm], console: Console) -> Study:
    """Return the search over methods for the best students of the first phase.

    Args:
        first: finished rounds over students.
        arms: students of the last round.
        console: console for the progress.

    Raises:
        ValueError: if the rest of the budget is smaller than the smallest search.
    """
    path = first.trainer.folder / METHODS
    # Of several processes one prepares the phase: measured times decide the length of rounds.
    with FileLock(first.trainer.folder / "work/methods.lock"):
        if path.exists():
            state = State.from_json(json.loads(path.read_text(encoding="utf-8")))
        else:
            state = _prepare(first, arms, console)
            state.write(first.trainer.folder, METHODS)
    return first.followed_by(state)


def chosen_students(
    qualities: dict[str, float], sizes: dict[str, float], target: float | None
) -> list[str]:
    """Return up to three neighbours on the frontier, the most important one first.

    These are the smallest student that meets the target, the next smaller one, which a better
    method may lift above it, and the next larger one.

    Args:
        qualities: score by name; higher is better.
        sizes: size by name.
        target: quality to meet. None, or if no student meets it: the best student is the first.

    Example:
        >>> qualities = {"a": 0.7, "b": 0.8, "c": 0.9, "d": 0.95}
        >>> chosen_students(qualities, {"a": 1, "b": 2, "c": 3, "d": 4}, 0.85)
        ['c', 'b', 'd']
    """
    front = frontier(qualities, sizes)
    good = [index for index, name in enumerate(front) if target and qualities[name] >= target]
    first = good[0] if good else len(front) - 1
    indices = (first, first - 1, first + 1)
    return [front[index] for index in indices if 0 <= index < len(front)]


def _prepare(first: Study, arms: Sequence[Arm], console: Console) -> State:
    """Find the methods of each chosen student, and plan the rounds with the rest of the budget."""
    settings = _rest(first)
    chosen: list[Arm] = []
    refused = dict(first.state.refused)
    candidates: dict[str, list[Arm]] = {}
    for student in _chosen(first, arms):
        own_arms, reasons = _methods_of(first, student)
        console.print(f"{student.name}: {len(own_arms)} methods", highlight=False, markup=False)
        candidates[student.name] = own_arms
        refused |= {f"{name}@{student.name}": reason for name, reason in reasons.items()}
    schedule, names = _plan(first, settings, candidates)
    for name in names:
        chosen += candidates[name]
    state = first.state
    return replace(state, settings=settings, arms=tuple(chosen), refused=refused, schedule=schedule)


def _plan(
    first: Study, settings: Settings, candidates: dict[str, list[Arm]]
) -> tuple[Schedule, list[str]]:
    """Return the rounds and the students that take part; a small budget leaves out the last ones.

    Raises:
        ValueError: if the budget does not suffice for one student.
    """
    names = list(candidates)
    while True:
        arms: list[Arm] = []
        for name in names:
            arms += candidates[name]
        try:
            schedule = plan_search(first.trainer.experiment, settings, arms, first.state.num_jobs)
        except ValueError:
            if len(names) == 1:
                raise
        else:
            if not schedule.notes or len(names) == 1:
                return schedule, names
        names = names[:-1]


def _rest(first: Study) -> Settings:
    """Return the settings with the budget that the students have left."""
    settings = first.state.settings
    if settings.max_seconds is not None:
        used = sum(result["seconds"] for result in first.results) / first.state.num_jobs
        return replace(settings, max_seconds=max(1.0, settings.max_seconds - used))
    return rest_of_budget(settings, first.state.schedule)


def _chosen(first: Study, arms: Sequence[Arm]) -> list[Arm]:
    """Return the students whose methods are searched."""
    finished = {name: score for name, score in first.scores(arms).items() if score > -1e9}
    if not finished:
        raise RuntimeError("search: all trainings of students failed. See trials/ for their errors")
    by_name = {arm.name: arm for arm in arms}
    limits = first.state.settings.limits
    sizes = {name: smallest_file(by_name[name].costs, limits) for name in finished}
    names = chosen_students(finished, comparable_sizes(sizes), quality_target(first))
    return [by_name[name] for name in names]


def _methods_of(first: Study, student: Arm) -> tuple[list[Arm], dict[str, str]]:
    """Return an arm for each method of a student, and the reason for each method that fails."""
    settings = first.state.settings
    experiment = first.trainer.experiment
    data: dict[str, Any] = base_data(experiment.recipe) | student.changes
    own = replace(experiment, recipe=build(data))
    candidates = find_candidates(own, settings.candidates, settings.has_options, settings.max_cost)
    arms = [
        replace(
            arm,
            name=f"{arm.name}@{student.name}",
            changes=arm.changes | student.changes,
            costs=student.costs,
        )
        for arm in candidates.arms
    ]
    return arms, candidates.refused
