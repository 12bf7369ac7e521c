"""One job of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

JobKind = Literal["teacher", "record", "evaluate", "baseline", "stage", "export", "report"]


@dataclass(frozen=True)
class Job:
    """One job of a plan: a training, a recording, an evaluation, an export or the report.

    Attributes:
        name: unique name, such as ``student/distilled/seed-0/stage-1``.
        kind: kind of the job. ``baseline`` and ``stage`` train a student: a baseline, or one
            stage of the distilled student. The last stage also evaluates it.
        inputs: names of the jobs whose results it reads.
        fingerprint: hash of its configuration, data, code and inputs. Jobs with equal fingerprints
            have equal results.
        arm: baseline or ``distilled``, for a student.
        seed: seed of a student.
        stage_index: index of the stage of a teacher or of the distilled student.
        teacher_index: index of a teacher among those of its stage.
        is_last: whether no stage of the student follows.

    Example:
        >>> job = Job("student/alone/seed-0", "baseline", (), "5f1c", arm="alone", seed=0)
        >>> job.trains_student
        True
    """

    name: str
    kind: JobKind
    inputs: tuple[str, ...]
    fingerprint: str
    arm: str = ""
    seed: int = 0
    stage_index: int = 0
    teacher_index: int = 0
    is_last: bool = True

    @property
    def trains_student(self) -> bool:
        """Whether the job trains a student, or a stage of it."""
        return self.kind in ("baseline", "stage")

    @property
    def is_training(self) -> bool:
        """Whether the job trains a network."""
        return self.kind == "teacher" or self.trains_student

    @property
    def is_executable(self) -> bool:
        """Whether any process can execute the job once its inputs exist."""
        return self.kind == "evaluate" or self.is_training
