"""Execution of trials in this process or in several worker processes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from instil.search.trainer import Trainer
from instil.search.trials import Trial, read_result, write_json

POLL_SECONDS = 0.2
QUEUE = "work/queue.json"
"""File with the trials that workers train."""

OnResult = Callable[[dict[str, Any]], None]


def execute(
    trainer: Trainer, trials: Sequence[Trial], num_jobs: int, on_result: OnResult
) -> list[dict[str, Any]]:
    """Train trials; return their results in the same order.

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
    results = []
    for trial in trials:
        result = trainer.train(trial)
        on_result(result)
        results.append(result)
    return results


def _execute_in_workers(folder: Path, trials: Sequence[Trial], num_jobs: int) -> None:
    """Start workers, and wait until they have trained all trials."""
    write_json(folder / QUEUE, [trial.to_json() for trial in trials])
    processes = []
    logs = []
    try:
        for index in range(min(num_jobs, len(trials))):
            log = (folder / f"work/worker-{index}.log").open("wb")
            logs.append(log)
            command = [sys.executable, "-m", "instil.search.worker", str(folder)]
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
                    f"{folder / f'work/worker-{index}.log'}"
                )
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
                process.wait()
        for log in logs:
            log.close()
