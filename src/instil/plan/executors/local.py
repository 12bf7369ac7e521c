"""Executor of this process."""

from __future__ import annotations

from pathlib import Path

from instil.plan.plan import Plan
from instil.plan.run_folder import RunFolder
from instil.progress import RunProgress


class LocalExecutor:
    """Leaves all trainings to the process of the run, which executes them one after another."""

    def check(self) -> None:
        """Always possible."""

    def execute(self, plan: Plan, folder: Path, progress: RunProgress) -> None:
        """Leave all trainings to the process of the run."""
        # Workers of a stopped run may have left some.
        RunFolder(folder).delete_worker_files()
