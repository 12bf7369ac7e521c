"""Worker process: executes trainings of a plan until none is left.

Any number of workers may work on one run folder. A training is claimed by a file lock, which the
operating system releases when a process ends. A killed worker therefore loses one training, which
another worker continues from its last checkpoint.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from instil import recipe as recipes
from instil.experiment.device import on_device_of_recipe
from instil.experiment.experiment import Experiment
from instil.files.atomic import atomic
from instil.files.locks import FileLock
from instil.plan.job import Job
from instil.plan.plan import Plan
from instil.plan.run_folder import RunFolder
from instil.plan.runner import Runner
from instil.plan.thread_count import restore_threads
from instil.recipe.sections import Recipe

POLL_SECONDS = 0.2

WORKERS = "checkpoint/workers"
"""Folder of the locks, records and messages of workers, in the run folder."""


def error_file(folder: Path, index: int) -> Path:
    """Return the file with the message of a worker that has failed."""
    return folder / WORKERS / f"{index}.error"


@on_device_of_recipe
def work(recipe: Recipe, folder: Path, index: int) -> None:
    """Execute the trainings of a run that no other worker executes, until all are finished.

    Args:
        recipe: recipe of the run.
        folder: run folder with recipe and environment.
        index: index of the worker.
    """
    plan, runner = _prepare(recipe, folder, index)
    _execute(plan, plan.teachers, runner)
    if not all(plan.is_done(job, folder) for job in plan.students):
        runner.teacher()
        names = runner.names()
        students = tuple(job for job in plan.students if job.arm in names)
        _execute(plan, students, runner)


def execute_one(folder: Path, name: str) -> None:
    """Execute one training of a run.

    Args:
        folder: run folder with recipe and environment.
        name: name of the job.
    """

    @on_device_of_recipe
    def execute(recipe: Recipe) -> None:
        plan, runner = _prepare(recipe, folder, index=0)
        job = next(job for job in plan.trainings if job.name == name)
        if job.kind == "student":
            runner.teacher()
        if job.kind == "teacher" or job.arm in runner.names():
            runner.execute(job)

    execute(recipes.load(folder))


def _prepare(recipe: Recipe, folder: Path, index: int) -> tuple[Plan, Runner]:
    """Build plan and runner of a worker, with the number of threads of the run."""
    run_folder = RunFolder(folder)
    # Every worker has a file of its own; the run collects the records of finished trainings.
    (folder / WORKERS).mkdir(exist_ok=True)
    run_folder.metrics_file = f"{WORKERS}/{index}.jsonl"
    restore_threads(run_folder)
    experiment = Experiment.from_recipe(recipe)
    return Plan.compile(experiment), Runner(experiment, run_folder, lambda *_: None)


def _execute(plan: Plan, jobs: tuple[Job, ...], runner: Runner) -> None:
    """Execute jobs that do not depend on each other, until all are finished."""
    folder = runner.folder.path
    while pending := [job for job in jobs if not plan.is_done(job, folder)]:
        executed = [job for job in pending if _claim_and_execute(plan, job, runner)]
        if not executed:
            time.sleep(POLL_SECONDS)


def _claim_and_execute(plan: Plan, job: Job, runner: Runner) -> bool:
    """Execute a job unless another worker does; return whether this one did."""
    folder = runner.folder.path
    lock = FileLock(folder / WORKERS / f"{job.name.replace('/', '-')}.lock")
    if not lock.try_acquire():
        return False
    try:
        # Another worker may have finished it after the list of pending jobs was read.
        if plan.is_done(job, folder):
            return False
        runner.execute(job)
        return True
    finally:
        lock.release()


def main() -> None:
    """Work on the run folder of the first argument as the worker of the second argument."""
    folder, index = Path(sys.argv[1]), int(sys.argv[2])
    try:
        work(recipes.load(folder), folder, index)
    except Exception as error:
        with atomic(error_file(folder, index)) as temporary:
            temporary.write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        raise


if __name__ == "__main__":
    main()
