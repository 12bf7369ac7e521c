"""Executor of several processes on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import torch

from instil.engine import world_size
from instil.plan.plan import Plan
from instil.plan.run_folder import WORKERS, RunFolder
from instil.plan.worker import POLL_SECONDS, error_file
from instil.progress import RunProgress

MAX_RESTARTS = 3
"""Times that a killed worker is started again."""


class ProcessesExecutor:
    """Executes trainings in worker processes, each with the number of threads of the run.

    With several CUDA devices the workers use them in turn.

    Args:
        num_workers: number of processes.
    """

    def __init__(self, num_workers: int) -> None:
        self.num_workers = num_workers

    def check(self) -> None:
        """Check the number of processes.

        Raises:
            ValueError: for less than one, and inside a distributed process group.
        """
        if self.num_workers < 1:
            raise ValueError(f"--jobs: expected at least 1, got {self.num_workers}")
        if world_size() > 1:
            raise ValueError(
                "--jobs: a run that a launcher distributes over ranks cannot have workers. "
                "Expected one of the two. Leave --jobs out, or start without the launcher"
            )

    def execute(self, plan: Plan, folder: Path, progress: RunProgress) -> None:
        """Start the workers and wait until all trainings are finished.

        Args:
            plan: the plan.
            folder: run folder with recipe and environment.
            progress: display of the run.

        Raises:
            RuntimeError: with the message of the first training that fails, or if workers are
                killed again and again.
        """
        pending = plan.pending(folder)
        (folder / WORKERS).mkdir(exist_ok=True)
        workers = _Workers(folder, plan.experiment.recipe.device)
        reported: set[str] = set()
        progress.add_jobs(len(pending))
        try:
            for index in range(min(self.num_workers, len(pending))):
                workers.start(index)
            while workers.are_running():
                for job in pending:
                    if job.name not in reported and plan.is_done(job, folder):
                        reported.add(job.name)
                        progress.start(f"{job.name} finished")
                time.sleep(POLL_SECONDS)
        finally:
            workers.stop()
        RunFolder(folder).delete_worker_files()


class _Workers:
    """Worker processes of one run."""

    def __init__(self, folder: Path, device: str) -> None:
        self.folder = folder
        self.device = device
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.restarts: dict[int, int] = {}

    def start(self, index: int) -> None:
        """Start a worker; its output goes to a log file."""
        error_file(self.folder, index).unlink(missing_ok=True)
        environment = dict(os.environ)
        num_devices = torch.cuda.device_count()
        if self.device == "auto" and num_devices > 1:
            environment["CUDA_VISIBLE_DEVICES"] = str(index % num_devices)
        command = [sys.executable, "-m", "instil.plan.worker", str(self.folder), str(index)]
        with self._log_file(index).open("ab") as log:
            self.processes[index] = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment
            )

    def _log_file(self, index: int) -> Path:
        return self.folder / WORKERS / f"{index}.log"

    def are_running(self) -> bool:
        """Whether a worker has not finished; killed workers are started again.

        Raises:
            RuntimeError: if a worker has failed.
        """
        for index, process in list(self.processes.items()):
            code = process.poll()
            if code is None:
                continue
            del self.processes[index]
            if code != 0:
                self._restart(index, code)
        return bool(self.processes)

    def _restart(self, index: int, code: int) -> None:
        """Start a killed worker again; raise the error of a failed one."""
        file = error_file(self.folder, index)
        if file.exists():
            raise RuntimeError(file.read_text(encoding="utf-8").partition(": ")[2])
        self.restarts[index] = self.restarts.get(index, 0) + 1
        if code > 0 or self.restarts[index] > MAX_RESTARTS:
            raise RuntimeError(
                f"worker {index} ended with exit code {code}. Expected 0. Its output is in "
                f"{self._log_file(index)}"
            )
        self.start(index)

    def stop(self) -> None:
        """Terminate the workers that still run, and wait for them."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait()
