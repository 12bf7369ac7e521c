"""Distillation in one call, for a loop's worth of Python and no recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from instil import catalogue
from instil.core import Net, Objective, Objectives, Schedule, Teacher
from instil.engine import Optimization
from instil.networks.presets import taps_for
from instil.schemes.offline import Offline
from instil.teachers.frozen import Frozen
from instil.train import Fit, Record, Training, fit

Wanted = Mapping[str, float | Schedule | Objective | tuple[Objective, float | Schedule]]


def distil(
    teacher: nn.Module,
    student: nn.Module,
    loader: Iterable[Any],
    objectives: Wanted | None = None,
    *,
    epochs: int = 20,
    lr: float = 1e-3,
    training: Training | None = None,
    task: str = "classification",
    validation: Iterable[Any] | None = None,
    checkpoint: Path | str | None = None,
    report: Callable[[Record], None] | None = None,
) -> Fit:
    """Train ``student`` to do what ``teacher`` does on the batches of ``loader``: dicts, or tuples as the task names them (image, label).

    ``objectives``: name -> weight (``{"kd": 1.0}``, with the catalogue's defaults), an objective, or (objective, weight); by default
    cross-entropy on what is labelled (-100: not) and KD on everything. ``training`` replaces ``epochs`` and ``lr`` (AdamW, cosine). With
    ``validation`` batches every record tells the student's metrics and its agreement with the teacher. The student is trained in place; the
    net of the answer asks it as the task does.

    Raises ValueError for unknown names and for settings that do not fit together.
    """
    asked = catalogue.find("task", task)()
    mine = student if isinstance(student, Net) else Net(student, asked.call, taps_for(student))
    theirs = (
        teacher
        if isinstance(teacher, Teacher)
        else Frozen(
            teacher if isinstance(teacher, Net) else Net(teacher, asked.call, taps_for(teacher))
        )
    )
    goals = _objectives(objectives or {"cross_entropy": 1.0, "kd": 1.0})
    asked.check(goals)
    return fit(
        Offline(mine, theirs, goals),
        loader,
        training or Training(epochs=epochs, optimizer=Optimization(options={"lr": lr})),
        names=asked.names,
        evaluate=None
        if validation is None
        else lambda net: asked.evaluate(net, validation, theirs)[0],
        checkpoint=None if checkpoint is None else Path(checkpoint),
        report=report,
    )


def _objectives(wanted: Wanted) -> Objectives:
    made: dict[str, Objective] = {}
    weights: dict[str, float | Schedule] = {}
    for name, one in wanted.items():
        goal, weight = (
            one
            if isinstance(one, tuple)
            else (one, 1.0)
            if isinstance(one, Objective)
            else (None, one)
        )
        made[name] = catalogue.find("objective", name)() if goal is None else goal
        weights[name] = weight
    return Objectives(made, weights)
