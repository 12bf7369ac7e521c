"""Arms of a search: changes of a recipe that are compared with each other."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from instil import catalogue
from instil.catalogue.signatures import parameters, with_defaults
from instil.early_signals.gradients import GradientSignals
from instil.recipe import build, label_objective_configs
from instil.recipe.sections import Recipe
from instil.search.space import (
    RATE_FACTOR,
    Dimension,
    balanced_weight,
    learning_rate_factor,
    method_space,
    weight_dimension,
)

ArmKind = Literal["recipe", "objective", "scheme", "baseline", "student", "teacher"]
RATES_OF_SCHEDULES = ("max_lr", "base_lr")
"""Options of schedules of torch that are learning rates of their own, which replace ``lr``."""
REFERENCES = ("alone", "label_smoothing", "pseudo_labels", "random_init")
"""Baselines that every search trains, where they apply; the objective ``kd`` is one, too."""


@dataclass(frozen=True)
class Arm:
    """A method with the values of a recipe that are searched.

    Attributes:
        name: unique name; ``METHOD@STUDENT`` in a search over students and methods.
        kind: ``recipe`` for the recipe's own method and student, ``student`` for another student,
            ``teacher`` for another teacher, else the kind of the method.
        is_reference: whether the arm takes part in every round.
        changes: sections that replace those of the recipe.
        dimensions: values that are searched.
        step_seconds: measured seconds of a training step; 0 if unknown.
        signals: gradient of its losses before training; None without label losses, and for a
            baseline.
        costs: size and latency of a student, in a search over students.
    """

    name: str
    kind: ArmKind
    is_reference: bool
    changes: dict[str, Any]
    dimensions: tuple[Dimension, ...] = ()
    step_seconds: float = 0.0
    signals: GradientSignals | None = None
    costs: dict[str, Any] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """Name of the training: that of the baseline, or ``distilled``."""
        return self.name.partition("@")[0] if self.kind == "baseline" else "distilled"

    def with_costs(self, costs: dict[str, Any]) -> Arm:
        """Return the arm with measured costs."""
        return replace(self, costs=costs)

    def defaults(self) -> dict[str, Any]:
        """Return the default values of the dimensions."""
        return {dimension.path: dimension.default for dimension in self.dimensions}

    def published_start(self) -> dict[str, Any] | None:
        """Return the default values with the published weights; None if there are none."""
        weights = {one.path: one.published for one in self.dimensions if one.published is not None}
        return self.defaults() | weights if weights else None

    def to_json(self) -> dict[str, Any]:
        """Return the arm as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Arm:
        """Build an arm from plain data."""
        dimensions = tuple(
            Dimension(**{**entry, "choices": tuple(entry["choices"])})
            for entry in data["dimensions"]
        )
        # A search of an earlier version has no signals.
        signals = data.get("signals")
        return cls(
            **{
                **data,
                "dimensions": dimensions,
                "signals": None if signals is None else GradientSignals(**signals),
            }
        )


def base_data(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as plain data, for trainings of the student only.

    The teacher keeps the training that the recipe gives it.
    """
    data = recipe.model_dump(mode="json")
    if data["teacher"] is not None:
        data["teacher_train"] = data["teacher_train"] or data["train"]
    return data | {"baselines": [], "exported_arm": "distilled", "export": False, "search": None}


def arm_recipe(base: Mapping[str, Any], arm: Arm, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain data of the recipe of an arm.

    Args:
        base: data of the recipe.
        arm: the arm.
        params: values by path; those that are missing keep the value of the arm.
    """
    data = copy.deepcopy({**base, **arm.changes})
    for path, value in params.items():
        if path == RATE_FACTOR:
            _scale_rates(data["train"], value)
            continue
        section = data
        *parents, key = path.split(".")
        for parent in parents:
            section = section[parent]
        section[key] = value
    return data


def _scale_rates(train: dict[str, Any], factor: float) -> None:
    """Multiply the learning rates of all learners, and those that replace them in a schedule."""
    schedule = train["schedule"]
    for name in RATES_OF_SCHEDULES:
        if isinstance(schedule, dict) and isinstance(schedule.get(name), (int, float)):
            schedule[name] *= factor
    for optimizer in (train["optimizer"], *train["optimizers"].values()):
        for section in (optimizer, *optimizer.get("groups", [])):
            if isinstance(section.get("lr"), (int, float)):
                section["lr"] *= factor


def own_arm() -> Arm:
    """Return the arm of the recipe's own method."""
    return Arm("recipe", "recipe", False, {})


def reference_arms(recipe: Recipe, task: Any) -> Iterator[Arm]:
    """Yield the baselines that apply, and knowledge distillation if there is a teacher."""
    if recipe.data.surrogate is not None:
        return
    has_labels = recipe.data.num_labeled != 0
    has_teacher = bool(recipe.teachers) or recipe.store is not None
    for name in REFERENCES:
        baseline = catalogue.find("baseline", name)
        if not baseline.applies(task) or (baseline.trains and not has_labels):
            continue
        if baseline.needs_teacher and not has_teacher:
            continue
        if not baseline.trains:
            yield Arm(name, "baseline", True, {})
            continue
        objectives = _objectives_of(recipe, baseline.label_objectives(task))
        changes: dict[str, Any] = {"objectives": objectives, "scheme": {"type": "offline"}}
        # A student that starts from the teacher is built from it, also without its outputs.
        if not baseline.needs_teacher and recipe.student.model != "teacher":
            changes |= {"teacher": None, "store": None, "ensemble": None}
        yield Arm(name, "baseline", True, changes | {"balance": None})
    if has_teacher:
        yield _objective_arm(recipe, task, "kd", True)


def candidate_arms(recipe: Recipe, task: Any, names: Sequence[str] | None) -> Iterator[Arm]:
    """Yield an arm for every objective and scheme of the catalogue.

    Args:
        recipe: the recipe.
        task: its task.
        names: names of candidates; None for all.
    """
    for name in catalogue.names("objective"):
        is_chosen = names is None or name in names
        if is_chosen and name not in ("kd", "label_smoothing", *task.label_objectives):
            yield _objective_arm(recipe, task, name, False)
    for name in catalogue.names("scheme"):
        if (names is None or name in names) and name not in ("offline", recipe.scheme.type):
            yield _scheme_arm(recipe, task, name)


def _objective_arm(recipe: Recipe, task: Any, name: str, is_reference: bool) -> Arm:
    objectives = _label_objectives(recipe, task)
    objectives[name] = {"type": name}
    if task.kind == "multi" and "multi_label" in parameters(catalogue.find("objective", name)):
        objectives[name]["multi_label"] = True
    changes = {"objectives": objectives, "scheme": {"type": "offline"}, "balance": None}
    return Arm(name, "objective", is_reference, changes)


def _scheme_arm(recipe: Recipe, task: Any, name: str) -> Arm:
    changes: dict[str, Any] = {"scheme": {"type": name}}
    if "teacher" not in inspect.signature(catalogue.find("scheme", name)).parameters:
        changes |= {"teacher": None, "store": None, "ensemble": None}
        changes["objectives"] = _label_objectives(recipe, task)
    return Arm(name, "scheme", False, changes)


def _label_objectives(recipe: Recipe, task: Any) -> dict[str, Any]:
    """Return the recipe's objectives on labels; those of the task if it has none, but labels."""
    own = {
        key: config.model_dump(mode="json")
        for key, config in recipe.objectives.items()
        if config.type in task.label_objectives
    }
    has_labels = recipe.data.num_labeled != 0 and recipe.data.surrogate is None
    if own or not has_labels:
        return own
    return {name: {"type": name} for name in task.label_objectives}


def _objectives_of(recipe: Recipe, names: Sequence[str]) -> dict[str, Any]:
    configs = label_objective_configs(recipe, *names)
    return {key: config.model_dump(mode="json") for key, config in configs.items()}


def with_space(arm: Arm, base: Mapping[str, Any], task: Any) -> Arm:
    """Return an arm with the search space of its method.

    Args:
        arm: the arm.
        base: data of the recipe.
        task: task of the recipe. The options of its label losses are those of the recipe.
    """
    if arm.kind == "baseline" and not catalogue.find("baseline", arm.name).trains:
        return arm
    data = build(arm_recipe(base, arm, {})).model_dump(mode="json")
    dimensions = [learning_rate_factor()]
    balanced = balanced_weight(arm.signals) if arm.kind == "objective" else None
    for key, section in data["objectives"].items():
        if section["type"] in task.label_objectives:
            continue
        prefix = f"objectives.{key}"
        dimensions += method_space("objective", section["type"], prefix, section)
        weight = section["weight"]
        if len(data["objectives"]) > 1 and isinstance(weight, float) and weight > 0:
            published = catalogue.find("objective", section["type"]).card.published_weight
            dimensions.append(weight_dimension(f"{prefix}.weight", weight, balanced, published))
    scheme = data["scheme"]
    options = with_defaults(catalogue.find("scheme", scheme["type"]), scheme)
    dimensions += method_space("scheme", scheme["type"], "scheme", options)
    return replace(arm, dimensions=tuple(dimensions))
