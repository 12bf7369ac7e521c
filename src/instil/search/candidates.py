"""Candidates of a search: checked on one batch, with signals and the time of a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from instil import catalogue
from instil.cards import suggestion
from instil.early_signals.task_signals import TaskSignals
from instil.experiment.experiment import Experiment
from instil.recipe import build
from instil.search.arms import (
    Arm,
    arm_recipe,
    base_data,
    candidate_arms,
    own_arm,
    reference_arms,
    with_space,
)
from instil.search.probe import Probe


@dataclass(frozen=True)
class Candidates:
    """Arms of a search, and the methods that do not fit.

    Attributes:
        arms: arms that passed the checks.
        refused: reason by name of the method.
        signals: signals of teacher, student and data before trials.
        teacher_costs: size and latency of the teacher, in a search over students.
        teacher_signals: signals by teacher, in a search over teachers.
    """

    arms: list[Arm]
    refused: dict[str, str]
    signals: TaskSignals | None = None
    teacher_costs: dict[str, Any] = field(default_factory=dict)
    teacher_signals: dict[str, Any] = field(default_factory=dict)

    @property
    def early_signals(self) -> dict[str, Any]:
        """Plain data of all signals; ``teachers`` are those of a search over teachers."""
        if self.teacher_signals:
            return {"teachers": self.teacher_signals}
        return {} if self.signals is None else self.signals.to_json()


def check_names(names: Sequence[str]) -> None:
    """Check that candidates are objectives or schemes of the catalogue.

    Raises:
        ValueError: for another name.
    """
    method_names = [*catalogue.names("objective"), *catalogue.names("scheme")]
    for name in names:
        if name not in method_names:
            raise ValueError(
                f"--candidates: no objective or scheme '{name}'. Expected names of "
                f"`instil methods`.{suggestion(name, method_names)}"
            )


def find_candidates(
    experiment: Experiment,
    names: Sequence[str] | None,
    has_options: bool,
    max_cost: float = math.inf,
) -> Candidates:
    """Return the methods that fit a recipe, and the reason for each that does not.

    Args:
        experiment: experiment of the recipe, whose teacher is trained.
        names: names of candidates; None for the whole catalogue, an empty list for none.
        has_options: whether the options of the methods are searched.
        max_cost: largest time of a step of a candidate that is not named, in steps of the recipe's
            own method.

    Raises:
        ValueError: if the recipe's own method fails the checks, or no named candidate fits.
    """
    base = base_data(experiment.recipe)
    task = experiment.task
    probe = Probe(experiment, base)
    own = probe.check(own_arm())
    references, refused = fitting_references(experiment, probe.check)
    arms = [own, *references]
    for arm in candidate_arms(experiment.recipe, task, names):
        if reason := card_mismatch(arm, experiment):
            refused[arm.name] = reason
            continue
        try:
            checked = probe.check(arm)
            if names is None:
                require_cost(checked, own, max_cost)
            arms.append(checked)
        except Exception as error:  # a method may fail in any way on data it was not made for
            refused[arm.name] = reason_of(error)
    _require_named(names, arms, refused)
    arms = without_duplicates(arms, base)
    if has_options:
        arms = [with_space(arm, base, task) for arm in arms]
    return Candidates(arms, refused, probe.task_signals)


def _require_named(
    names: Sequence[str] | None, arms: Sequence[Arm], refused: dict[str, str]
) -> None:
    """Check that one of the named candidates fits; refuse those that every arm has.

    Raises:
        ValueError: if none fits.
    """
    if not names:
        return
    fitting = {arm.name for arm in arms}
    for name in names:
        if name not in fitting:
            refused.setdefault(name, "is a loss on labels, or the scheme of the recipe")
    if not fitting & set(names):
        reasons = "; ".join(f"{name}: {refused[name]}" for name in names)
        raise ValueError(
            f"--candidates: none fits. Expected one method that fits the recipe, got {reasons}. "
            "Leave --candidates out to try all"
        )


def require_cost(arm: Arm, own: Arm, max_cost: float) -> None:
    """Check the time of a step of a method, since the budget of a search counts steps.

    Args:
        arm: the method, with its time.
        own: the recipe's own method.
        max_cost: largest quotient of the times.

    Raises:
        ValueError: for a slower method.
    """
    cost = arm.step_seconds / own.step_seconds
    if cost > max_cost:
        raise ValueError(
            f"a step takes {cost:.0f} times as long as that of the recipe. Expected at most "
            f"{max_cost:g} times. Raise --max-cost, or name the method in --candidates"
        )


def fitting_references(
    experiment: Experiment, check: Callable[[Arm], Arm]
) -> tuple[list[Arm], dict[str, str]]:
    """Return the reference arms that fit a recipe, and the reason for each that does not.

    Args:
        experiment: experiment of the recipe.
        check: returns the arm of an objective, or raises a ValueError.
    """
    base = base_data(experiment.recipe)
    arms: list[Arm] = []
    refused: dict[str, str] = {}
    for arm in reference_arms(experiment.recipe, experiment.task):
        try:
            is_baseline = arm.kind == "baseline"
            arms.append(_checked_baseline(arm, base) if is_baseline else check(arm))
        # kd needs logits and labels that are classes; a compressed teacher needs the teacher.
        except ValueError as error:
            refused[arm.name] = reason_of(error)
    return arms, refused


def _checked_baseline(arm: Arm, base: Mapping[str, Any]) -> Arm:
    build(arm_recipe(base, arm, {}))
    return arm


def without_duplicates(arms: Sequence[Arm], base: Mapping[str, Any]) -> list[Arm]:
    """Remove the recipe's own arm if another arm is the same recipe.

    Args:
        arms: the own arm and others.
        base: data of the recipe.
    """

    def key(arm: Arm) -> tuple[str, dict[str, Any]]:
        return arm.method, build(arm_recipe(base, arm, {})).model_dump(mode="json")

    own, *others = arms
    is_repeated = any(key(arm) == key(own) for arm in others)
    return others if is_repeated else [own, *others]


def card_mismatch(arm: Arm, experiment: Experiment) -> str:
    """Return why the card of a method excludes a task; empty if it does not.

    Args:
        arm: arm of the method.
        experiment: experiment of the recipe.
    """
    names = catalogue.find(arm.kind, arm.name).card.tasks
    task = experiment.task
    if not {experiment.recipe.task.name, *task.method_tasks} & set(names):
        return f"defined for {', '.join(names)}, not for {experiment.recipe.task.name}"
    if arm.kind == "objective":
        options = dict(arm.changes["objectives"][arm.name])
        kind = catalogue.find("objective", options.pop("type"))
        try:
            # Before the networks are built: most methods are refused for their kind of labels.
            task.check({arm.name: kind(**options)})
        except ValueError as error:
            return reason_of(error)
    return ""


def reason_of(error: Exception) -> str:
    """Return the message of an error in one line, with its class unless it is a wrong value."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
