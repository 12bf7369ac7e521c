"""Execution of trials in this process or in several worker processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from instil.files.json_files import write_json
from instil.files.locks import FileLock
from instil.search.trainer import Trainer
from instil.search.trials import Trial, read_result

POLL_SECONDS = 0.2

OnResult = Callable[[dict[str, Any]], None]


def execute(
    trainer: Trainer, trials: Sequence[Trial], num_jobs: int, on_result: OnResult
) -> list[dict[str, Any]]:
    """Train trials; return their results in the same order.

    A trial that another process trains is left to it, and its result is read from its file.

    Args:
        trainer: trains a trial.
        trials: trials that do not depend on each other.
        num_jobs: number of processes.
        on_result: called with every result.

    Raises:
        RuntimeError: if a worker fails.
    """
    pending = [trial for trial in trials if read_result(trainer.folder, trial) is None]
    if num_jobs > 1 and len(pending) > 1:
        _execute_in_workers(trainer.folder, pending, num_jobs)
    results: dict[str, dict[str, Any]] = {}
    while any(trial.key not in results for trial in trials):
        num_finished = len(results)
        for trial in trials:
            result = None if trial.key in results else train_if_free(trainer, trial)
            if result is not None:
                results[trial.key] = result
                on_result(result)
        if len(results) == num_finished:
            time.sleep(POLL_SECONDS)
    return [results[trial.key] for trial in trials]


def train_if_free(trainer: Trainer, trial: Trial) -> dict[str, Any] | None:
    """Return the result of a trial, which is trained now if no other process trains it.

    Args:
        trainer: trains the trial.
        trial: the trial.

    Returns:
        The result; None while another process trains the trial.
    """
    finished = read_result(trainer.folder, trial)
    if finished is not None:
        return finished
    # The system releases the lock of a killed process, whose trial is then trained here.
    lock = FileLock(trainer.folder / f"work/{trial.key}.lock")
    if not lock.try_acquire():
        return None
    try:
        return trainer.train(trial)
    finally:
        lock.release()


def _execute_in_workers(folder: Path, trials: Sequence[Trial], num_jobs: int) -> None:
    """Start workers, and wait until they have trained all trials."""
    # Other processes may share the folder, so that the names of the files have the process.
    process_id = os.getpid()
    queue = folder / f"work/queue-{process_id}.json"
    write_json(queue, [trial.to_json() for trial in trials])
    processes = []
    logs = []
    try:
        for index in range(min(num_jobs, len(trials))):
            log = (folder / f"work/worker-{process_id}-{index}.log").open("wb")
            logs.append(log)
            command = [sys.executable, "-m", "instil.search.worker", str(folder), str(queue)]
            processes.append(
                subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            )
        while any(process.poll() is None for process in processes):
            time.sleep(POLL_SECONDS)
        for index, process in enumerate(processes):
            # A killed worker leaves its trial to this process.
            if process.returncode > 0:
                raise RuntimeError(
                    f"worker {index}: exit code {process.returncode}. Expected 0. Its output is in "
                    f"{folder / f'work/worker-{process_id}-{index}.log'}"
                )
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
                process.wait()
        for log in logs:
            log.close()
