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
from instil.plan.run_folder import WORKERS, RunFolder
from instil.plan.runner import Runner
from instil.plan.shared_students import SharedStudents
from instil.plan.thread_count import restore_threads
from instil.recipe.sections import Recipe

POLL_SECONDS = 0.2


def error_file(folder: Path, index: int) -> Path:
    """Return the file with the message of a worker that has failed."""
    return folder / WORKERS / f"{index}.error"


@on_device_of_recipe
def work(recipe: Recipe, folder: Path, index: int) -> None:
    """Execute the jobs of a run that no other worker executes, until all are finished.

    Args:
        recipe: recipe of the run.
        folder: run folder with recipe and environment.
        index: index of the worker.
    """
    plan, runner = _prepare(recipe, folder, index)
    runner.on_finished = SharedStudents(plan, runner.folder).publish_training
    while pending := _pending(plan, runner):
        done = {job.name for job in plan.jobs if plan.is_done(job, folder)}
        ready = [job for job in pending if done.issuperset(job.inputs)]
        executed = [job for job in ready if _claim_and_execute(plan, job, runner)]
        if not executed:
            time.sleep(POLL_SECONDS)


def execute_one(folder: Path, name: str) -> None:
    """Execute one job of a run, whose inputs are finished.

    Args:
        folder: run folder with recipe and environment.
        name: name of the job.
    """

    @on_device_of_recipe
    def execute(recipe: Recipe) -> None:
        plan, runner = _prepare(recipe, folder, index=0)
        for job in _pending(plan, runner):
            if job.name == name:
                runner.execute(job)

    execute(recipes.load(folder))


def _prepare(recipe: Recipe, folder: Path, index: int) -> tuple[Plan, Runner]:
    """Build plan and runner of a worker, with the number of threads of the run."""
    run_folder = RunFolder(folder)
    # Every worker has a file of its own; the run collects the records of finished trainings.
    (folder / WORKERS).mkdir(exist_ok=True)
    run_folder.metrics_file = f"{WORKERS}/{index}.jsonl"
    restore_threads(run_folder)
    plan = Plan.compile(Experiment.from_recipe(recipe))
    runner = Runner(plan.experiment, run_folder, lambda *_: None)
    runner.scores.keeps_outputs = True
    return plan, runner


def _pending(plan: Plan, runner: Runner) -> list[Job]:
    """Return the jobs that are left, without baselines whose teacher cannot be scored."""
    pending = plan.pending(runner.folder.path)
    if any(job.kind in ("teacher", "evaluate") for job in pending):
        return pending
    arms = runner.names() if pending else []
    return [job for job in pending if job.arm in arms]


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
