"""Students of a search that fit the recipe and the limits, with their measured costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from rich.console import Console

from instil.cards import suggestion
from instil.core import Net
from instil.experiment.experiment import Experiment
from instil.networks.factory import network_names
from instil.search.arms import Arm, base_data, with_space
from instil.search.candidates import Candidates, reason_of
from instil.search.limits import describe_cost, formats, violation
from instil.search.probe import Probe
from instil.search.state import Settings
from instil.search.student_arms import FAMILIES, student_arms
from instil.search.student_costs import measure_student, num_parameters


def find_students(experiment: Experiment, settings: Settings, console: Console) -> Candidates:
    """Return the students that fit a recipe and the limits, and the reason for each other one.

    Costs do not depend on the training: a student beyond the limits is never trained.

    Args:
        experiment: experiment of the recipe, whose teacher is trained.
        settings: families and limits.
        console: console for the progress.

    Raises:
        ValueError: if no student is within the limits, or none of those that are named fits.
    """
    base = base_data(experiment.recipe)
    probe = Probe(experiment, base)
    teacher = teacher_net(experiment, probe)
    students = CheckedStudents(experiment, probe, settings, teacher)
    model = None if teacher is None else teacher.model
    for arm in student_arms(experiment.recipe, model, settings.students):
        reason = students.add(arm)
        console.print(f"{arm.name}: {reason or 'fits'}", highlight=False, markup=False)
    if not students.arms:
        raise ValueError(_no_student(settings, students.refused))
    _require_named(settings, students)
    arms = students.arms
    if settings.has_options:
        arms = [with_space(arm, base, experiment.task) for arm in arms]
    return Candidates(
        arms, students.refused, probe.task_signals, _teacher_costs(experiment, teacher)
    )


def check_students(experiment: Experiment, names: Sequence[str]) -> None:
    """Check that one of the named students can be built, before the teacher is trained.

    Args:
        experiment: experiment of the recipe.
        names: families and models; families are checked with the trained teacher.

    Raises:
        ValueError: for a mistyped name, and if none can be built.
    """
    _check_names(names)
    if set(FAMILIES) & set(names):
        return
    probe = Probe(experiment, base_data(experiment.recipe))
    refused: dict[str, str] = {}
    for arm in student_arms(experiment.recipe, None, names):
        if arm.kind == "recipe":
            continue
        try:
            probe.build(arm)
            return
        except Exception as error:  # a model may fail in any way on data it was not made for
            refused[arm.name] = reason_of(error)
    _refuse_named(refused)


def _check_names(names: Sequence[str]) -> None:
    """Check that names without a source are families or networks of this package."""
    valid = [*FAMILIES, *network_names()]
    for name in names:
        if ":" not in name and name not in valid:
            raise ValueError(
                f"--students: unknown student '{name}'. Expected one of {', '.join(FAMILIES)}, a "
                f"network of instil, SOURCE:NAME or my_module:function.{suggestion(name, valid)}"
            )


class CheckedStudents:
    """Students that were checked so far."""

    def __init__(
        self, experiment: Experiment, probe: Probe, settings: Settings, teacher: Net | None
    ) -> None:
        self._experiment = experiment
        self._probe = probe
        self._settings = settings
        self._largest = num_parameters(teacher) if teacher is not None else float("inf")
        self.arms: list[Arm] = []
        self.refused: dict[str, str] = {}
        self.failed: list[str] = []

    def add(self, arm: Arm) -> str:
        """Add a student; return the reason if it is refused, else an empty text."""
        try:
            checked, reason = self._check(arm)
        except Exception as error:  # a model may fail in any way on data it was not made for
            checked, reason = arm, reason_of(error)
            self.failed.append(arm.name)
        if reason:
            self.refused[arm.name] = reason
        else:
            self.arms.append(checked)
        return reason

    def _check(self, arm: Arm) -> tuple[Arm, str]:
        experiment, scheme = self._probe.build(arm)
        net = scheme.export()
        count = num_parameters(net)
        is_compression = arm.changes.get("student", {}).get("model") == "teacher"
        if arm.kind == "student" and not is_compression and count >= self._largest:
            return arm, f"{count:,} parameters; the teacher has {self._largest:,}"
        limits = self._settings.limits
        # The cheap limit comes first: an export takes seconds.
        if reason := violation({"parameters": count}, limits):
            return arm, reason
        arm = self._probe.time(arm, experiment, scheme)
        costs = measure_student(experiment, net)
        reasons = [violation(one, limits) for one in formats(costs).values()]
        if all(reasons):
            return arm, "; int8: ".join(dict.fromkeys(reasons))
        return arm.with_costs(costs), ""


def _require_named(settings: Settings, students: CheckedStudents) -> None:
    """Check that one of the named students can be built; others may be beyond a limit.

    Raises:
        ValueError: if none can, such as for a mistyped name.
    """
    is_alone = all(arm.kind == "recipe" for arm in students.arms)
    if settings.students and is_alone and students.failed == list(students.refused):
        _refuse_named(students.refused)


def _refuse_named(refused: Mapping[str, str]) -> None:
    if refused:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        raise ValueError(
            f"--students: none fits. Expected one student that fits the recipe, got {reasons} "
            "Leave --students out to try the default ones"
        )


def teacher_net(experiment: Experiment, probe: Probe) -> Net | None:
    """Return the teacher if it is one network, not a model elsewhere or without weights."""
    recipe = experiment.recipe
    if recipe.store is not None or len(recipe.teachers) != 1:
        return None
    config = recipe.teachers[0]
    net = probe.trained_teacher(experiment.stages[0], config, 0)
    has_weights = net is not None and num_parameters(net) > 0
    return net if has_weights else None


def _teacher_costs(experiment: Experiment, teacher: Net | None) -> dict[str, object]:
    """Return size and latency of the teacher; empty if it cannot be exported."""
    if teacher is None:
        return {}
    try:
        with torch.no_grad():
            return measure_student(experiment, teacher)
    except Exception:  # a teacher need not be exportable
        return {}


def _no_student(settings: Settings, refused: dict[str, str]) -> str:
    limits = ", ".join(
        f"{name} {describe_cost(name, value)}" for name, value in settings.limits.items()
    )
    # The reason of a student that was measured helps more than that of one that was not built.
    name, reason = min(refused.items(), key=lambda entry: "the limit is" not in entry[1])
    return (
        f"--limit: none of {len(refused)} students fits. Expected a student within "
        f"{limits or 'no limits'}, got, for example, {name}: {reason}. Raise the limit, or name "
        "smaller students (--students)"
    )
