"""Selection of an executor by the options of a command."""

from __future__ import annotations

from instil.plan.executors.executor import Executor
from instil.plan.executors.local import LocalExecutor
from instil.plan.executors.processes import ProcessesExecutor


def select_executor(num_workers: int = 1, cluster: str | None = None) -> Executor:
    """Return the executor that the options of ``instil run`` name.

    Args:
        num_workers: number of processes; 1 for this process.
        cluster: ``ray`` or the address of a Ray cluster; None for this machine.

    Raises:
        ValueError: if both are given.
    """
    if cluster is not None:
        if num_workers != 1:
            raise ValueError(
                "--jobs: Ray chooses the number of processes. Expected --jobs or --on, got both"
            )
        from instil.plan.executors.ray_cluster import RayExecutor

        return RayExecutor(cluster)
    return LocalExecutor() if num_workers == 1 else ProcessesExecutor(num_workers)
