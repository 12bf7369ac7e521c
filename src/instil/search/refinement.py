"""Students between the sizes of the candidates, next to the smallest one that keeps the share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from rich.console import Console

from instil.files.json_files import write_json
from instil.files.locks import FileLock
from instil.search.arms import Arm, with_space
from instil.search.limits import smallest_file
from instil.search.probe import Probe
from instil.search.quality_target import quality_target
from instil.search.scaling import WIDTH, ScaledStudent, scale_between, scaled_student
from instil.search.student_arms import families
from instil.search.students import CheckedStudents, teacher_net
from instil.search.study import Study

REFINEMENTS = "refinements"
"""Folder of the students that joined the last round."""


def refine_students(study: Study, arms: Sequence[Arm], console: Console) -> list[Arm]:
    """Train students of other sizes in the last round, to find smaller ones that keep the share.

    The smallest student that keeps the share is the upper end, and the largest one of its family
    below the share the lower end. The student at the geometric mean of their sizes replaces one of
    the ends, and so on.

    Args:
        study: finished rounds over students.
        arms: students of the last round.
        console: console for the progress.

    Returns:
        All students of the last round, the best first.
    """
    arms = list(arms)
    refinement = _Refinement(study, console)
    for index in range(study.state.schedule.num_refinements):
        if study.is_late():
            break
        # Of several processes one measures the next student, since latencies vary.
        with FileLock(study.trainer.folder / "work/refinements.lock"):
            addition = refinement.read_or_find(index, arms)
        if addition is None:
            break
        arm, neighbour = addition
        study.join_last_round(arm, neighbour)
        arms.append(arm)
    if study.late_arms:
        names = ", ".join(arm.name for arm in study.late_arms)
        study.notes.append(f"Trained between the sizes of other students: {names}")
    return study.ranked(arms)


class _Refinement:
    """Search for the next student of another size."""

    def __init__(self, study: Study, console: Console) -> None:
        self._study = study
        self._console = console
        settings = study.state.settings
        recipe = study.trainer.experiment.recipe
        self._families = families(recipe) if settings.students is None else settings.students

    @cached_property
    def _target(self) -> float | None:
        """Score of a student that keeps the share."""
        return quality_target(self._study)

    @cached_property
    def _students(self) -> CheckedStudents:
        """Students that were measured so far."""
        study = self._study
        experiment = study.trainer.experiment
        probe = Probe(experiment, study.base)
        teacher = teacher_net(experiment, probe)
        return CheckedStudents(experiment, probe, study.state.settings, teacher)

    def read_or_find(self, index: int, arms: Sequence[Arm]) -> tuple[Arm, Arm] | None:
        """Return the next student and the larger one of its family; None if there is none."""
        path = self._study.trainer.folder / REFINEMENTS / f"{index}.json"
        content: dict[str, Any]
        if not path.exists():
            addition = self._find(arms)
            content = {"refused": self._students.refused}
            if addition is not None:
                content |= {"arm": addition[0].to_json(), "upper": addition[1].name}
            write_json(path, content)
        content = json.loads(path.read_text(encoding="utf-8"))
        state = self._study.state
        self._study.state = replace(state, refused=state.refused | content["refused"])
        if "arm" not in content:
            return None
        upper = next(arm for arm in arms if arm.name == content["upper"])
        return Arm.from_json(content["arm"]), upper

    def _find(self, arms: Sequence[Arm]) -> tuple[Arm, Arm] | None:
        study = self._study
        target = self._target
        if target is None:
            return None
        scores = study.scores(arms)
        limits = study.state.settings.limits
        sizes = {arm.name: smallest_file(arm.costs, limits) for arm in arms}
        good = sorted(
            (arm for arm in arms if scores[arm.name] >= target), key=lambda arm: sizes[arm.name]
        )
        for upper in good:
            arm = self._between(upper, arms)
            if arm is not None and smallest_file(arm.costs, limits) < sizes[good[0].name]:
                return arm, upper
        return None

    def _between(self, upper: Arm, arms: Sequence[Arm]) -> Arm | None:
        """Return the student between one that is good enough and the next smaller one."""
        student = self._scaled(upper)
        if student is None:
            return None
        others = [one for one in map(self._scaled, arms) if one is not None]
        scales = [one.scale for one in others if one.family == student.family]
        lower = max((scale for scale in scales if scale < student.scale), default=None)
        scale = scale_between(student.scale, lower, student.unit)
        if scale is None:
            return None
        smaller = student.with_scale(scale)
        arm = Arm(smaller.name, "student", False, {"student": smaller.section})
        return self._check(arm)

    def _scaled(self, arm: Arm) -> ScaledStudent | None:
        """Return a student whose family takes part in the search."""
        recipe = self._study.trainer.experiment.recipe
        section = arm.changes.get("student") or recipe.student.model_dump(mode="json")
        student = scaled_student(section)
        family = "networks" if student is not None and student.path == WIDTH else "teacher"
        return student if family in self._families else None

    def _check(self, arm: Arm) -> Arm | None:
        """Return a student with its costs; None if it is refused."""
        study = self._study
        students = self._students
        if arm.name not in {one.name for one in students.arms} | students.refused.keys():
            reason = students.add(arm)
            self._console.print(f"{arm.name}: {reason or 'fits'}", highlight=False, markup=False)
        measured = next((one for one in students.arms if one.name == arm.name), None)
        if measured is None or not study.state.settings.has_options:
            return measured
        return with_space(measured, study.base, study.trainer.experiment.task)
