"""One job of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

JobKind = Literal["teacher", "teacher_scores", "student", "export", "report"]


@dataclass(frozen=True)
class Job:
    """One job of a plan: a training, an evaluation, an export or the report.

    Attributes:
        name: unique name, such as ``student/distilled/seed-0``.
        kind: kind of the job.
        inputs: names of the jobs whose results it reads.
        fingerprint: hash of its configuration, data, code and inputs. Jobs with equal fingerprints
            have equal results.
        arm: baseline or ``distilled``, for a student.
        seed: seed of a student.
        stage_index: index of the stage of a teacher.
        teacher_index: index of a teacher among those of its stage.

    Example:
        >>> job = Job("student/alone/seed-0", "student", (), "5f1c", arm="alone", seed=0)
        >>> job.is_training
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

    @property
    def is_training(self) -> bool:
        """Whether the job trains a network, so that any process can execute it alone."""
        return self.kind in ("teacher", "student")
