"""Parts that the trainings of a search share: the teachers, and folders that are deleted."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from instil.core import Net
from instil.experiment.experiment import Experiment
from instil.plan.run_folder import RunFolder
from instil.plan.teacher_training import TeacherTrainer
from instil.recipe.sections import TeacherConfig


class SharedTeachers(TeacherTrainer):
    """Teachers of the recipe for all arms, also for those with other options of label losses."""

    def network(self, stage: Experiment, spec: TeacherConfig, index: int) -> tuple[Net, float]:
        """Return the teacher of the recipe with this index."""
        own = self.stages[0]
        return super().network(own, own.recipe.teachers[index], index)


class WorkFolder:
    """Run folder of one training, which is deleted afterwards."""

    def __init__(self, folder: Path) -> None:
        self._parent = folder / "work"

    def __enter__(self) -> RunFolder:
        self._parent.mkdir(parents=True, exist_ok=True)
        self._path = Path(tempfile.mkdtemp(dir=self._parent))
        return RunFolder(self._path)

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)
