"""Interface of executors."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from instil.plan.plan import Plan
from instil.progress import RunProgress


class Executor(Protocol):
    """Executes the trainings of a plan before their results are read.

    The weights, metrics and records of a training do not depend on its executor.
    """

    def check(self) -> None:
        """Check that the executor can be used; called before anything else.

        Raises:
            ValueError: if it cannot.
        """

    def execute(self, plan: Plan, folder: Path, progress: RunProgress) -> None:
        """Execute the trainings whose results are not on the disk.

        Args:
            plan: the plan.
            folder: run folder with recipe and environment.
            progress: display of the run.

        Raises:
            RuntimeError: if a training fails.
        """
