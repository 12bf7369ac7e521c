"""Executor of a Ray cluster: trainings on several machines and devices.

Every machine of the cluster needs this package, and the data and modules of the recipe at the same
paths. Results travel through Ray, so that no shared folder is needed.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from instil.engine import world_size
from instil.files.atomic import atomic
from instil.plan.job import Job
from instil.plan.plan import Plan
from instil.plan.run_folder import RunFolder
from instil.plan.worker import execute_one
from instil.progress import RunProgress

MAX_RETRIES = 3
"""Times that Ray executes a training again after its process or machine has been lost."""

CONNECT_SECONDS = 5.0

Files = Mapping[str, bytes]
"""Content of files by their path, below ``run/`` or ``cache/``."""


class RayExecutor:
    """Executes trainings as tasks of a Ray cluster.

    Args:
        address: address of the cluster, or ``ray`` for a cluster on this machine.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    def check(self) -> None:
        """Connect to the cluster.

        Raises:
            ValueError: if Ray is not installed, or there is no cluster at the address.
        """
        if world_size() > 1:
            raise ValueError(
                "--on: a run that a launcher distributes over ranks cannot use a cluster. "
                "Expected one of the two. Leave --on out, or start without the launcher"
            )
        try:
            import ray
        except ImportError as error:
            raise ValueError(
                "--on: Ray is not installed. Expected the package ray. Install it with "
                "pip install 'instil[ray]'"
            ) from error
        if ray.is_initialized():
            return
        is_local = self.address == "ray"
        if not is_local:
            _check_reachable(self.address)
        try:
            ray.init(
                address="local" if is_local else self.address,
                include_dashboard=False if is_local else None,
                log_to_driver=False,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ValueError(_unreachable(self.address, error)) from error

    def execute(self, plan: Plan, folder: Path, progress: RunProgress) -> None:
        """Execute all trainings, and write their files.

        Args:
            plan: the plan.
            folder: run folder with recipe and environment.
            progress: display of the run.

        Raises:
            RuntimeError: with the message of the first training that fails.
        """
        import ray

        pending = plan.pending(folder)
        progress.add_jobs(len(pending))
        references = self._submit(plan, folder, pending)
        names = {reference: name for name, reference in references.items()}
        waiting = list(names)
        while waiting:
            (finished, *_), waiting = ray.wait(waiting, num_returns=1)
            try:
                files: Files = ray.get(finished)
            except ray.exceptions.RayTaskError as error:
                raise RuntimeError(str(error.cause)) from error
            _write(files, folder, _cache_folder(plan))
            progress.start(f"{names[finished]} finished")
        RunFolder(folder).delete_worker_files()

    def _submit(self, plan: Plan, folder: Path, pending: list[Job]) -> dict[str, Any]:
        """Submit the jobs; Ray starts each after the jobs whose files it needs."""
        import ray

        num_gpus = 1 if torch.cuda.is_available() else 0
        task = ray.remote(
            num_cpus=torch.get_num_threads(), num_gpus=num_gpus, max_retries=MAX_RETRIES
        )(_execute_remotely)
        shared: Any = ray.put(_common_files(plan, folder))
        references: dict[str, Any] = {}
        for job in pending:
            inputs = [references[name] for name in job.inputs if name in references]
            references[job.name] = task.remote(job.name, shared, *inputs)
        return references


def _check_reachable(address: str) -> None:
    """Connect to the port of a cluster: Ray itself retries for minutes.

    Raises:
        ValueError: if nothing listens there.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS):
            pass
    except (OSError, ValueError) as error:
        raise ValueError(_unreachable(address, error)) from error


def _unreachable(address: str, error: Exception) -> str:
    return (
        f"--on: there is no Ray cluster at {address}. Expected its address, such as "
        f"10.0.0.1:6379, or ray for one on this machine. {error}"
    )


def _execute_remotely(name: str, shared: Files, *inputs: Files) -> dict[str, bytes]:
    """Execute one job in a temporary folder; return the files that it has written."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, cache = Path(temporary) / "run", Path(temporary) / "cache"
        os.environ["INSTIL_CACHE"] = str(cache)
        for files in (shared, *inputs):
            _write(files, folder, cache)
        before = set(_files(folder, cache))
        execute_one(folder, name)
        after = _files(folder, cache)
        return {path: after[path].read_bytes() for path in after.keys() - before}


def _common_files(plan: Plan, folder: Path) -> dict[str, bytes]:
    """Return the files that every job may read: recipe, teachers and finished stages."""
    checkpoint = folder / "checkpoint"
    paths = [folder / "recipe.yaml", folder / "environment.json", checkpoint / "run.json"]
    paths += [*checkpoint.glob("teacher.json"), *checkpoint.glob("distilled-*-stage*.safetensors")]
    common = {f"run/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in paths}
    for job in plan.teachers:
        path = plan.teacher_path(job)
        if path.exists():
            common[f"cache/{path.parent.name}/{path.name}"] = path.read_bytes()
    return common


def _cache_folder(plan: Plan) -> Path:
    return plan.teacher_path(plan.teachers[0]).parents[1] if plan.teachers else Path()


def _write(files: Files, folder: Path, cache: Path) -> None:
    for name, content in files.items():
        root, _, path = name.partition("/")
        target = (folder if root == "run" else cache) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic(target) as temporary:
            temporary.write_bytes(content)


def _files(folder: Path, cache: Path) -> dict[str, Path]:
    """Return all files of results; records are part of the results of students."""
    files = {}
    for root, base in (("run", folder), ("cache", cache)):
        for path in base.rglob("*"):
            is_result = path.suffix in (".json", ".safetensors", ".png")
            if path.is_file() and is_result:
                files[f"{root}/{path.relative_to(base).as_posix()}"] = path
    return files
