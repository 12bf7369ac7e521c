"""Teachers of a search: trained, measured by cheap signals, and ordered by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from instil.core import Scheme
from instil.early_signals.measured import few_batches, item_probabilities, outputs_of
from instil.early_signals.stage_signals import with_all_roles
from instil.experiment.experiment import Experiment
from instil.recipe import RecipeError, build, fingerprint
from instil.recipe.sections import ModelConfig, Recipe
from instil.search.arms import REFERENCES, Arm, base_data, own_arm, reference_arms, with_space
from instil.search.candidates import Candidates, reason_of
from instil.search.folder import hash_data, hash_inputs, hash_recipe
from instil.search.probe import Probe
from instil.search.teacher_arms import (
    TeacherCandidate,
    teacher_candidates,
    teacher_of_assistant,
    teachers_of_changes,
)
from instil.search.trainer import Trainer

Section = dict[str, Any] | list[dict[str, Any]]


def check_teachers(recipe: Recipe, teachers: Mapping[str, Any] | None) -> None:
    """Check the teachers of a search before anything is trained.

    Raises:
        RecipeError: for a recipe without a teacher, for a store, for wrong names and sections, and
            for missing weights.
    """
    if recipe.store is not None or not recipe.teachers:
        raise RecipeError(
            "teacher: missing, or recorded in a store. Expected a teacher, whose section the "
            "candidates of --teachers change"
        )
    if not teachers:
        raise RecipeError(
            "--teachers: missing. Expected a YAML file of teachers, changes of the recipe's "
            "teacher such as options.width=8,num_replicas=3, or search.teachers in the recipe"
        )
    if reserved := {"recipe", *REFERENCES} & set(teachers):
        raise RecipeError(
            f"--teachers: {min(reserved)} is the name of another arm. Expected another name"
        )
    for name in teachers:
        # Names of arms are METHOD@STUDENT, and an assistant has a file of its own.
        if set("/@") & set(name):
            raise RecipeError(f"--teachers: '{name}' is not a name. Expected one without / and @")
    base = base_data(recipe)
    for candidate in teacher_candidates(recipe, teachers):
        try:
            _check_candidate(base, candidate)
        except ValueError as error:
            path = _path_of(recipe, teachers, candidate.name)
            raise RecipeError(f"{path}: {error}") from error


def _check_candidate(base: dict[str, Any], candidate: TeacherCandidate) -> None:
    """Check the sections of a teacher and of its assistant, and that their weights exist."""
    recipe = build(base | {"teacher": candidate.teacher})
    networks: list[ModelConfig] = list(recipe.teachers)
    if candidate.assistant is not None:
        networks.append(build(base | {"student": candidate.assistant}).student)
    for network in networks:
        if network.weights is not None:
            recipe.locate(network.weights)


def _path_of(recipe: Recipe, teachers: Mapping[str, Any], name: str) -> str:
    """Return where a teacher is described: in the recipe or on the command line."""
    own = recipe.search.teachers if recipe.search else None
    if own is not None and teachers == (teachers_of_changes(own) if isinstance(own, list) else own):
        return f"search.teachers.{name}"
    return f"--teachers: {name}"


def find_teachers(
    trainer: Trainer, teachers: Mapping[str, Any], has_options: bool, console: Console
) -> Candidates:
    """Train the teachers of a search and order them by their validation score.

    Args:
        trainer: trains teachers and assistants into the folder of the search.
        teachers: result of ``parse_teachers``.
        has_options: whether the options of the recipe's method are searched.
        console: console for the progress.

    Returns:
        Teachers, the best first, and the baselines that apply; reasons for teachers that fail.

    Raises:
        ValueError: if the recipe's own teacher fails the checks, or all others do.
    """
    recipe = trainer.experiment.recipe
    measured = _Measured(trainer, console)
    measured.add(own_arm())
    refused: dict[str, str] = {}
    for candidate in teacher_candidates(recipe, teachers):
        try:
            section = _trained_section(trainer, candidate)
            measured.add(Arm(candidate.name, "teacher", False, {"teacher": section}))
        except Exception as error:  # a model may fail in any way on data it was not made for
            refused[candidate.name] = reason_of(error)
    if set(refused) == set(teachers):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        raise ValueError(
            f"--teachers: none fits. Expected one teacher that fits the recipe, got {reasons}"
        )
    arms = measured.ordered()
    references = reference_arms(recipe, trainer.experiment.task)
    arms += [arm for arm in references if arm.kind == "baseline"]
    if has_options:
        base = base_data(recipe)
        arms = [with_space(arm, base, trainer.experiment.task) for arm in arms]
    return Candidates(arms, refused, teacher_signals=measured.signals())


def _trained_section(trainer: Trainer, candidate: TeacherCandidate) -> Section:
    """Train the teacher, and its assistant; return the section that teaches the student."""
    data = base_data(trainer.experiment.recipe) | {"teacher": candidate.teacher}
    trainer.train_teachers(build(data))
    if candidate.assistant is None:
        return candidate.teacher
    recipe = build(data | {"student": candidate.assistant})
    # A search that ended before its first round leaves its assistants, maybe those of other
    # options or data.
    own = replace(trainer.experiment, recipe=recipe)
    parts = (hash_recipe(recipe), hash_data(own), hash_inputs(own, ()))
    name = f"{candidate.name}-{fingerprint(*parts)}.safetensors"
    path = trainer.folder / "teachers" / name
    trainer.train_assistant(recipe, path)
    return teacher_of_assistant(candidate.assistant, path)


class _Measured:
    """Teachers that were measured so far."""

    def __init__(self, trainer: Trainer, console: Console) -> None:
        self._trainer = trainer
        self._console = console
        self._arms: list[Arm] = []
        self._signals: dict[str, dict[str, Any]] = {}
        self._decisions: dict[str, Tensor | None] = {}

    def add(self, arm: Arm) -> None:
        """Build the recipe of a teacher, take its first steps and measure its signals."""
        experiment = self._trainer.experiment
        recipe = build(base_data(experiment.recipe) | arm.changes)
        own = replace(experiment, recipe=recipe)
        probe = Probe(own, base_data(recipe))
        stage, scheme = probe.build(own_arm())
        assert probe.task_signals is not None
        self._signals[arm.name] = probe.task_signals.to_json()
        self._decisions[arm.name] = _decisions(stage.stages[-1], scheme)
        checked = probe.time(own_arm(), stage, scheme)
        measured = replace(arm, step_seconds=checked.step_seconds, signals=checked.signals)
        self._arms.append(measured)
        score = self._signals[arm.name]["teacher_score"]
        text = "no score" if score is None else f"validation {score:.4g}"
        self._console.print(f"teacher {arm.name}: {text}", highlight=False, markup=False)

    def ordered(self) -> list[Arm]:
        """Return the teachers by their validation score, the best first."""
        sign = 1 if self._trainer.experiment.task.higher_is_better else -1

        def key(arm: Arm) -> tuple[bool, float]:
            score = self._signals[arm.name]["teacher_score"]
            return score is None, -sign * (score or 0.0)

        return sorted(self._arms, key=key)

    def signals(self) -> dict[str, dict[str, Any]]:
        """Return the signals of each teacher, with its agreement with the other teachers."""
        names = list(self._signals)
        return {
            name: self._signals[name]
            | {"teacher_agreement": mean_agreement(name, names, self._decisions)}
            for name in names
        }


def mean_agreement(
    name: str, names: Sequence[str], decisions: Mapping[str, Tensor | None]
) -> float | None:
    """Return the mean share of items on which a teacher agrees with each other teacher.

    Args:
        name: name of the teacher.
        names: names of all teachers.
        decisions: most likely class of each item; None for a teacher without one.

    Returns:
        Number in [0, 1]; None for a teacher without decisions, or without others.

    Example:
        >>> import torch
        >>> decisions = {"a": torch.tensor([0, 1]), "b": torch.tensor([0, 0]), "c": None}
        >>> mean_agreement("a", ["a", "b", "c"], decisions)
        0.5
    """
    own = decisions[name]
    shares = []
    for other in names:
        decision = decisions[other]
        if other != name and own is not None and decision is not None:
            shares.append(float((own == decision).double().mean()))
    return sum(shares) / len(shares) if shares else None


@torch.no_grad()
def _decisions(stage: Experiment, scheme: Scheme) -> Tensor | None:
    """Return the most likely class of validation items; None without logits of the labels."""
    teacher = with_all_roles(scheme.teacher)
    if teacher is None:
        return None
    batches = few_batches(stage, stage.splits.validation)
    items = item_probabilities(stage.task.kind, batches, outputs_of(teacher, batches))
    return None if items is None else items[0].argmax(-1)
