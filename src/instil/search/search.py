"""Search for the method and the options of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from instil import recipe as recipes
from instil.engine import world_size
from instil.experiment import threads
from instil.experiment.device import on_device_of_recipe
from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.files.atomic import atomic
from instil.files.json_files import write_json
from instil.files.locks import FileLock
from instil.recipe import RecipeError
from instil.recipe.sections import Recipe
from instil.search.candidates import check_names, find_candidates
from instil.search.failures import set_aside_transient
from instil.search.folder import (
    check_new,
    check_unchanged,
    hash_data,
    hash_inputs,
    hash_recipe,
    starting,
)
from instil.search.folds import check_folds
from instil.search.locked_test import FINALISTS
from instil.search.outcome import write_outcome
from instil.search.planning import plan_rounds
from instil.search.refinement import refine_students
from instil.search.sampling import require_optuna
from instil.search.smallest import check_before_training
from instil.search.state import STATE, Settings, State, read_state
from instil.search.strategy import describe, resolve_settings
from instil.search.student_methods import methods_study
from instil.search.students import find_students
from instil.search.study import Study
from instil.search.teachers import check_teachers, find_teachers
from instil.search.trainer import Trainer

RUNNING = "work/running.lock"
"""Lock of the process that started a search, or continues it before others join."""


def start(
    recipe: Recipe, settings: Settings, folder: Path, console: Console, num_jobs: int = 1
) -> dict[str, Any]:
    """Search for the best method of a recipe in a new folder.

    Args:
        recipe: the recipe; its own objectives are a candidate.
        settings: budget, strategy and candidates.
        folder: folder of the search.
        console: console for the progress.
        num_jobs: number of processes.

    Returns:
        Content of ``search.json``.

    Raises:
        ValueError: for a recipe or settings that do not fit, before anything is trained.
        FileExistsError: if the folder has files.
        NotADirectoryError: if it is a file.
    """
    check_new(folder)
    return _search(recipe, folder, console, num_jobs, settings)


def resume(folder: Path, console: Console, num_jobs: int = 1) -> dict[str, Any]:
    """Continue a stopped search, or share a running one; finished trials are read.

    Several processes may share a folder. Each trial is trained by one of them. Trials that failed
    for lack of memory or by a lost server are tried again, see ``set_aside_transient``.

    Args:
        folder: folder of the search.
        console: console for the progress.
        num_jobs: number of processes.

    Returns:
        Content of ``search.json``, equal to that of a search without the stop.

    Raises:
        FileNotFoundError: if the folder is not one of a search.
        ValueError: if its state is damaged, or its recipe, data or code have changed.
    """
    read_state(folder)
    return _search(recipes.load(folder), folder, console, num_jobs, None)


@on_device_of_recipe
def _search(
    recipe: Recipe, folder: Path, console: Console, num_jobs: int, settings: Settings | None
) -> dict[str, Any]:
    _check_recipe(recipe, settings)
    experiment = Experiment.from_recipe(recipe)
    # Wrong input is found here, before a folder is written.
    if settings is not None and settings.num_folds > 1:
        check_folds(experiment, settings.num_folds)
    *_, (_, scheme, _) = dry_run(experiment)
    if settings is not None:
        check_before_training(experiment, settings, num_jobs)
    if settings is None:
        state = State.from_json(read_state(folder))
        check_unchanged(state, experiment, folder)
        torch.set_num_threads(state.num_threads)
        trainer = Trainer(experiment, folder)
    else:
        threads.choose_num_threads(scheme, next(iter(experiment.loader(experiment.samples))))
        trainer = Trainer(experiment, folder)
        with starting(folder):
            state = _prepare(trainer, settings, num_jobs, console)
    lock = FileLock(folder / RUNNING)
    try:
        # Processes that join a running search must decide by the same results.
        if lock.try_acquire() and settings is None:
            _set_aside_failures(folder, console)
        return _run(state, trainer, num_jobs, console)
    finally:
        lock.release()


def _check_recipe(recipe: Recipe, settings: Settings | None) -> None:
    """Check a recipe before its data are read; ``settings`` are those of a new search."""
    if world_size() > 1:
        raise ValueError("search: several ranks. Expected one process, and --jobs for more")
    if recipe.stages:
        raise RecipeError(
            "stages: a search trains one stage. Expected a recipe without stages. Search the "
            "stages one after another"
        )
    if recipe.student.is_fitted:
        raise RecipeError(
            f"student.model: a search compares trainings in steps, and {recipe.student.model} is "
            "fitted at once. Expected a network. Use instil run with several recipes, and instil "
            "compare"
        )
    if settings is not None and settings.has_students and not (recipe.teachers or recipe.store):
        raise RecipeError(
            "teacher: missing. Expected a teacher, whose quality the students of a search keep"
        )
    if settings is not None and settings.has_teachers:
        check_teachers(recipe, settings.teachers)
    require_optuna()
    if settings is not None:
        check_names(settings.candidates or ())


def _set_aside_failures(folder: Path, console: Console) -> None:
    """Train trials again that failed for lack of memory or by a lost server, and name them."""
    if arms := set_aside_transient(folder):
        text = f"Failed trainings are tried again: {', '.join(arms)}."
        console.print(text, highlight=False, markup=False)


def _prepare(trainer: Trainer, settings: Settings, num_jobs: int, console: Console) -> State:
    """Train the teacher, check the candidates and plan the rounds."""
    experiment = trainer.experiment
    console.print("Training the teacher, unless the cache has it.", highlight=False)
    trainer.train_teachers()
    if settings.has_students:
        candidates = find_students(experiment, settings, console)
    elif settings.has_teachers:
        teachers = settings.teachers or {}
        candidates = find_teachers(trainer, teachers, settings.has_options, console)
    else:
        names = settings.candidates if "methods" in settings.over else ()
        candidates = find_candidates(experiment, names, settings.has_options, settings.max_cost)
    arms = candidates.arms
    noun = next((one for one in ("students", "teachers") if one in settings.over), "methods")
    console.print(f"{len(arms)} arms, {len(candidates.refused)} {noun} refused.", highlight=False)
    for name in (*(settings.candidates or ()), *(settings.teachers or ())):
        if reason := candidates.refused.get(name):
            console.print(f"Refused: {name}: {reason}", highlight=False, markup=False)
    settings = resolve_settings(experiment, settings, arms, num_jobs)
    console.print(f"Strategy: {describe(settings)}.", highlight=False)
    arms, schedule = plan_rounds(experiment, settings, arms, num_jobs)
    state = State(
        settings,
        tuple(arms),
        candidates.refused,
        schedule,
        torch.get_num_threads(),
        hash_data(experiment, arms),
        candidates.early_signals,
        candidates.teacher_costs,
        num_jobs,
        hash_recipe(experiment.recipe),
        hash_inputs(experiment, arms),
        trainer.lock.hash_test(),
    )
    with atomic(trainer.folder / "recipe.yaml") as temporary:
        temporary.write_text(recipes.to_yaml(experiment.recipe), encoding="utf-8")
    # The state comes last: it marks a search that can continue.
    state.write(trainer.folder)
    return state


def _run(state: State, trainer: Trainer, num_jobs: int, console: Console) -> dict[str, Any]:
    for note in state.schedule.notes:
        console.print(f"{note}.", highlight=False, markup=False)

    def show(result: dict[str, Any]) -> None:
        label = "final" if result["round"] < 0 else f"round {result['round'] + 1}"
        score = "failed" if result["score"] is None else f"{result['score']:.4g}"
        text = f"{label}: {result['arm']}, {result['num_steps']} steps, {score}"
        console.print(text, highlight=False, markup=False)

    study = Study(state, trainer, num_jobs, show)
    arms = study.run_rounds()
    if state.settings.is_joint:
        study = methods_study(study, arms, console)
        arms = study.run_rounds()
    elif state.schedule.num_refinements:
        arms = refine_students(study, arms, console)
    finalists = study.finalists(arms)
    # All choices but the one among the finalists are made: the test split may be read now.
    write_json(
        trainer.folder / FINALISTS,
        {"arms": {arm.name: study.best_params(arm) for arm in finalists}},
    )
    finals = study.train_finalists(finalists)
    return write_outcome(study, finalists, finals)


__all__ = ["STATE", "Settings", "resume", "start"]
