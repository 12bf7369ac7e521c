"""Execution of a recipe in a run folder."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from instil.core import Scheme
from instil.engine import clear_rank_errors, init_distributed, rank
from instil.engine.processes import broadcast_object, run_on_first_rank
from instil.experiment import threads
from instil.experiment.device import on_device_of_recipe
from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.experiment.stored_teacher import check_evaluated_samples
from instil.experiment.weighting_advice import weighting_advice
from instil.files.locks import FileLock
from instil.plan import results
from instil.plan import resume as run_state
from instil.plan.environment import collect_environment
from instil.plan.executors import Executor, LocalExecutor
from instil.plan.plan import Plan
from instil.plan.run_folder import RunFolder
from instil.plan.runner import Runner
from instil.plan.shared_students import SharedStudents
from instil.plan.student_export import export_best_student
from instil.plan.thread_count import restore_threads
from instil.plan.trained_model import TrainedModel
from instil.plan.training_progress import TrainingProgress, trainings
from instil.progress import RunProgress
from instil.recipe.sections import Recipe
from instil.report.page import write_report

log = logging.getLogger("instil")


@on_device_of_recipe
def run(
    recipe: Recipe,
    out: Path | None,
    resume: Path | None,
    console: Console,
    executor: Executor | None = None,
    fresh: bool = False,
) -> Path:
    """Execute the plan of a recipe: teacher, baselines and distilled students, export and report.

    Args:
        recipe: the recipe.
        out: folder of a new run.
        resume: folder of a stopped run to continue; its finished trainings are read.
        console: console for warnings and progress.
        executor: processes or machines that execute the trainings. Default: this process.
        fresh: whether to train students again that another run has trained.

    Returns:
        The run folder.

    Raises:
        ValueError: for wrong input, before anything is trained or written.
        RuntimeError: for a training that fails. The folder stays usable: the run can continue.
    """
    init_distributed()
    executor = executor or LocalExecutor()
    executor.check()
    out, resume = broadcast_object((out, resume))
    if (path := resume or out) is None:
        raise ValueError("a run needs a folder: out or resume")
    check = functools.partial(_check_folder, recipe, out, resume)
    with clear_rank_errors(f"Continue with: instil run --resume {path}"):
        run_on_first_rank(check)
        plan, is_resumed = _prepare(recipe, RunFolder(path), console)
        lock = run_state.run_lock(path)
        try:
            # Only now: a recipe that is refused leaves no folder.
            run_on_first_rank(functools.partial(_enter, path, lock, check))
            shared = SharedStudents(plan, RunFolder(path))
            return _run(shared, is_resumed, console, executor, fresh)
        finally:
            lock.release()


def _check_folder(recipe: Recipe, out: Path | None, resume: Path | None) -> None:
    if resume is not None:
        run_state.check_resumable(recipe, resume)
    elif out is not None:
        run_state.check_new(out)


def _prepare(recipe: Recipe, folder: RunFolder, console: Console) -> tuple[Plan, bool]:
    """Check the recipe on one batch; return its plan, and whether its run started before."""
    experiment = Experiment.from_recipe(recipe)
    *_, (_, scheme, _) = dry_run(experiment)
    check_evaluated_samples(experiment)
    is_resumed = restore_threads(folder)
    if not is_resumed:
        threads.choose_num_threads(scheme, next(iter(experiment.loader(experiment.samples))))
    if rank() == 0:
        _print_notes(experiment, scheme, console)
    return Plan.compile(experiment), is_resumed


def _print_notes(experiment: Experiment, scheme: Scheme, console: Console) -> None:
    """Print warnings, and which layers of student and teacher an objective pairs."""
    for sentence in experiment.warnings:
        console.print(f"[yellow]Warning:[/yellow] {escape(sentence)}.", highlight=False)
    for name, objective in scheme.objectives.named():
        for line in getattr(objective, "plan", []):
            console.print(f"{name}: {line}", highlight=False, markup=False, soft_wrap=True)
    for stage in experiment.stages:
        for sentence in weighting_advice(stage):
            console.print(f"[yellow]Warning:[/yellow] {escape(sentence)}.", highlight=False)


def _enter(path: Path, lock: FileLock, check: Callable[[], None]) -> None:
    """Lock the run folder, and delete temporary files of killed processes."""
    run_state.acquire(lock)
    # Another run may have written here while this one checked its recipe.
    check()
    run_state.clean(path)


def _begin(shared: SharedStudents, is_resumed: bool, console: Console, fresh: bool) -> None:
    """Write the state of a run, and copy students of other runs into its folder."""
    folder, experiment = shared.folder, shared.plan.experiment
    run_state.write(folder, experiment)
    folder.write_json("environment.json", collect_environment(experiment.recipe.seeds))
    if is_resumed and not (folder.path / "metrics.jsonl").exists():
        log.warning(
            "%s: metrics.jsonl is missing; the records of finished students are written again",
            folder.path,
        )
    if fresh:
        shared.delete()
    if jobs := shared.fetch():
        count = f"{len(jobs)} student{'s' * (len(jobs) != 1)}"
        console.print(f"{count} of other runs reused (--fresh trains again).", highlight=False)


def _run(
    shared: SharedStudents, is_resumed: bool, console: Console, executor: Executor, fresh: bool
) -> Path:
    plan, folder = shared.plan, shared.folder
    experiment = plan.experiment
    recipe = experiment.recipe
    run_on_first_rank(functools.partial(_begin, shared, is_resumed, console, fresh))
    students: dict[str, list[TrainedModel]] = {
        name: [] for name in (*recipe.baselines, "distilled")
    }
    teacher: TrainedModel | None = None
    status = "interrupted"
    try:
        total = trainings(plan).total
        with RunProgress(console, total, enabled=rank() == 0) as progress:
            executor.execute(plan, folder.path, progress)
            shown = TrainingProgress(progress)
            folder.on_log = shown.observe
            runner = Runner(experiment, folder, shown)
            runner.on_finished = shared.publish_training
            for job in plan.teachers:
                runner.execute(job)
            teacher = runner.teacher()
            for seed in recipe.seeds:
                for name in runner.names():
                    students[name].append(runner.student(name, seed))
                if rank() == 0:
                    result = results.assemble_result(experiment, teacher, students, "running")
                    folder.write_json("result.json", result)
        if rank() == 0:
            export_best_student(experiment, folder, students[recipe.exported_arm])
        status = "complete"
    except Exception:
        status = "failed"
        raise
    finally:
        assemble = functools.partial(results.assemble_result, experiment, teacher, students)
        _write_result(folder, assemble, status)
    return folder.path


def _write_result(
    folder: RunFolder, assemble: Callable[[str], dict[str, Any]], status: str
) -> None:
    """Write the result with its last status; it is complete only if the report is written too."""
    if rank() != 0:
        return
    if status == "complete":
        result = folder.read_json("result.json") or {}
        write_report(folder.path, status=status)
        folder.write_json("result.json", result | {"status": status})
    else:
        folder.write_json("result.json", assemble(status))
