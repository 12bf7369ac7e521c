"""Offline schemes of modules, without a recipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from instil import catalogue
from instil.cards import form_of
from instil.core import Net, Objective, Objectives, Schedule, Teacher
from instil.modules.drawn_noise import check_same_noise
from instil.networks.inferred_taps import infer_taps
from instil.networks.presets import taps_for
from instil.schemes.offline.offline import Offline
from instil.tasks.bases.default_objectives import default_objectives, has_class_counts
from instil.tasks.bases.loader import TaskLoader, task_loader
from instil.tasks.bases.task import Task
from instil.teachers.ensemble import Ensemble
from instil.teachers.frozen import Frozen

ObjectiveSpec = (
    float | Schedule | Objective | Mapping[str, Any] | tuple[Objective, float | Schedule] | None
)
"""Weight, objective, objective and weight, or options and weight as in a recipe."""
ObjectiveSpecs = str | Sequence[str] | Mapping[str, ObjectiveSpec] | Objectives
SEVERAL = (list, tuple, nn.ModuleList)
"""Types that hold several teachers."""
EXPECTED_OBJECTIVES = (
    "Expected a name, a list of names, or name -> weight, options, objective or (objective, weight)"
)


def offline_scheme(
    teacher: nn.Module | Sequence[nn.Module] | None,
    student: nn.Module,
    loader: Iterable[Any],
    objectives: ObjectiveSpecs | None,
    task: Task,
    names: Sequence[str] | None = None,
) -> Offline:
    """Build an offline scheme from modules.

    Args:
        teacher: module, or several modules, whose logits are averaged; None: no teacher, for
            objectives that read labels only.
        student: module or ``Net``.
        loader: its first batch shows the modules whose outputs objectives read.
        objectives: as in ``distil``; None: those of the labels, and one on the logits.
        task: the task.
        names: names of the values of a tuple; None: those of the task.

    Raises:
        ValueError: for unknown names and objectives that are undefined for the task.
    """
    if not isinstance(student, nn.Module):
        raise ValueError(f"student: Expected a module, got {type(student).__name__}")
    student_net = student if isinstance(student, Net) else Net(student, task.call)
    batches = task_loader(loader, task, student_net, names)
    built = _objectives(_defaults(student_net, batches) if objectives is None else objectives)
    task.check(built)
    if not isinstance(student, Net):
        student_net = Net(student, task.call, _taps(student, batches, built, "student"))
    frozen = None if teacher is None else _teacher(teacher, batches, built)
    if frozen is not None and any(any(one.needs["teacher"]) for _, one in built.named()):
        check_same_noise(student_net, frozen)
    return Offline(student_net, frozen, built)


def _defaults(student: Net, batches: TaskLoader) -> dict[str, dict[str, Any]]:
    """Return the default objectives for the labels of the task and the logits of the student."""
    task = batches.task
    if not has_class_counts(task):
        return default_objectives(task, 0)
    batch = batches.sample(student)
    task.check_inputs(batch)
    return default_objectives(task, batches.count_classes(batch))


def _teacher(
    teacher: nn.Module | Sequence[nn.Module], batches: TaskLoader, objectives: Objectives
) -> Teacher:
    """Return a fixed teacher for one module, an ensemble for several; keep a ``Teacher``."""
    if isinstance(teacher, SEVERAL):
        return Ensemble([_teacher(member, batches, objectives) for member in teacher])
    if isinstance(teacher, Teacher):
        return teacher
    if isinstance(teacher, Net):
        return Frozen(teacher)
    if not isinstance(teacher, nn.Module):
        raise ValueError(
            f"teacher: unknown type. Expected a module or a list of modules, got "
            f"{type(teacher).__name__}"
        )
    taps = _taps(teacher, batches, objectives, "teacher")
    return Frozen(Net(teacher, batches.task.call, taps))


def _taps(
    model: nn.Module, batches: TaskLoader, objectives: Objectives, side: str
) -> dict[str, str | list[str]]:
    """Return the taps of a known model; infer those of another one if an objective reads them."""
    taps = taps_for(model)
    roles: set[str] = set()
    for _, objective in objectives.named():
        for need in objective.needs.get(side, ()):
            roles |= set(need)
    is_known = "features" in taps or not roles - {"logits"}
    if is_known or "image" not in batches.task.inputs:
        return taps
    return infer_taps(model, batches.task.call, batches.sample(model)) | taps


def _objectives(specs: ObjectiveSpecs) -> Objectives:
    """Build objectives and weights from any form that ``distil`` accepts."""
    if isinstance(specs, Objectives):
        return specs
    if isinstance(specs, str):
        specs = [specs]
    if not isinstance(specs, Mapping):
        specs = dict.fromkeys(_names(specs), 1.0)
    if not specs:
        raise ValueError("objectives: is empty. Expected at least one, such as 'kd'")
    objectives: dict[str, Objective] = {}
    weights: dict[str, float | Schedule] = {}
    for name, spec in specs.items():
        objectives[name], weights[name] = _objective(name, spec)
    return Objectives(objectives, weights)


def _names(specs: Any) -> list[str]:
    """Return a list of names without duplicates."""
    names = list(specs) if isinstance(specs, (list, tuple)) else [specs]
    for name in names:
        if not isinstance(name, str):
            form = "an objective without a name" if isinstance(name, nn.Module) else "unknown form"
            raise ValueError(
                f"objectives: {form}. {EXPECTED_OBJECTIVES}, got {type(name).__name__}"
            )
        if names.count(name) > 1:
            raise ValueError(
                f"objectives.{name}: listed twice. Expected each name once. Use a dict with "
                "weights, or another name with type"
            )
    return names


def _objective(name: str, spec: ObjectiveSpec) -> tuple[Objective, float | Schedule]:
    """Return an objective and its weight."""
    if isinstance(spec, tuple) and len(spec) == 2 and isinstance(spec[0], Objective):
        return spec
    if isinstance(spec, Objective):
        return spec, 1.0
    if spec is None or isinstance(spec, (int, float, Schedule)):
        return catalogue.find("objective", name)(), 1.0 if spec is None else spec
    if not isinstance(spec, Mapping):
        raise ValueError(
            f"objectives.{name}: unknown form. Expected a weight, options, an objective or "
            f"(objective, weight), got {form_of(spec)}"
        )
    from instil.recipe import build_options

    options = dict(spec)
    method = str(options.pop("type", name))
    weight = options.pop("weight", 1.0)
    if isinstance(weight, Mapping):
        weight = Schedule(**weight)
    checked = build_options("objective", method, options, f"objectives.{name}")
    return catalogue.find("objective", method)(**checked), weight
