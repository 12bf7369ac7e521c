"""Checks of the settings of a search before anything is trained."""

from __future__ import annotations

from dataclasses import replace

from instil.experiment.experiment import Experiment
from instil.search.arms import Arm, base_data, candidate_arms, own_arm, reference_arms
from instil.search.candidates import card_mismatch, fitting_references, without_duplicates
from instil.search.planning import plan_search, plan_students, rest_of_budget, steps_in_time
from instil.search.probe import Probe
from instil.search.state import Settings
from instil.search.students import check_students

TIME_MARGIN = 2
"""Factor of a budget in hours that is still too small, above which it is checked after the
training of the teacher: the methods of a search may take less time than the recipe's own."""


def check_before_training(experiment: Experiment, settings: Settings, num_jobs: int) -> None:
    """Check that a named student exists and that the budget suffices.

    Args:
        experiment: experiment of the recipe.
        settings: settings of the search.
        num_jobs: number of processes.

    Raises:
        ValueError: if no named student can be built, or the budget is too small.
    """
    check_students(experiment, settings.students or ())
    if settings.max_steps is not None or settings.max_runs is not None:
        _check_steps(experiment, settings, num_jobs)
    elif settings.max_seconds is not None:
        _check_seconds(experiment, settings, num_jobs)


def _check_seconds(experiment: Experiment, settings: Settings, num_jobs: int) -> None:
    """Check that a budget in hours is not far too small, by steps of the recipe's own method.

    Raises:
        ValueError: if ``TIME_MARGIN`` times the budget is too small.
    """
    own = Probe(experiment, base_data(experiment.recipe)).check(own_arm())
    num_steps = steps_in_time(TIME_MARGIN * (settings.max_seconds or 0.0), [own], num_jobs)
    try:
        _check_steps(experiment, replace(settings, max_seconds=None, max_steps=num_steps), num_jobs)
    except ValueError as error:
        raise ValueError(
            f"{error}. These are the steps of {TIME_MARGIN} times the budget, since a step takes "
            f"{own.step_seconds:.2g} s"
        ) from error


def _check_steps(experiment: Experiment, settings: Settings, num_jobs: int) -> None:
    """Check that the budget suffices for the smallest search.

    Raises:
        ValueError: if the budget is too small for the fewest arms that may take part. The message
            has the steps for all arms that the checks may leave.
    """
    rest = settings
    if settings.is_joint:
        students = plan_students(experiment, settings, [own_arm()], num_jobs)
        rest = rest_of_budget(settings, students)
    fewest, most = _arms(experiment, settings)
    try:
        plan_search(experiment, rest, fewest, num_jobs)
    except ValueError:
        try:
            plan_search(experiment, rest, most, num_jobs)
        except ValueError as error:
            share = ". Students have a third of a budget, methods the rest"
            raise ValueError(f"{error}{share if settings.is_joint else ''}") from error
        raise


def _arms(experiment: Experiment, settings: Settings) -> tuple[list[Arm], list[Arm]]:
    """Return the fewest and the most arms of a search, as far as these are known before training.

    The students of a search are made from the trained teacher: one of them is certain.
    """
    own = own_arm()
    if settings.has_teachers:
        references = [
            arm
            for arm in reference_arms(experiment.recipe, experiment.task)
            if arm.kind == "baseline"
        ]
        # One of the other teachers fits, or the search ends.
        others = [replace(own, name=name) for name in settings.teachers or {}]
        return [own, *others[:1], *references], [own, *others, *references]
    if settings.has_students and not settings.is_joint:
        return [own], [own]
    base = base_data(experiment.recipe)
    probe = Probe(experiment, base)

    def check(arm: Arm) -> Arm:
        probe.build(arm)
        return arm

    references, _ = fitting_references(experiment, check)
    fewest = without_duplicates([own, *references], base)
    names = settings.candidates if "methods" in settings.over else ()
    others = [
        arm
        for arm in candidate_arms(experiment.recipe, experiment.task, names)
        if not card_mismatch(arm, experiment)
    ]
    # One of the named methods fits, or the search ends.
    certain = others[:1] if names else []
    return [*fewest, *certain], [*fewest, *others]
