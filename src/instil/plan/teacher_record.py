"""Scores of the teacher in a run folder, and its outputs for workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from instil.plan.records import read_record
from instil.plan.run_folder import WORKERS, RunFolder

FILE = "checkpoint/teacher.json"
REMEDY = "Delete it, and the teacher is evaluated again"


class TeacherRecord(BaseModel):
    """Content of the JSON file of the evaluated teacher.

    Attributes:
        is_scored: whether it can be compared with students.
        test: metrics on the test split; empty for a teacher that cannot be scored.
        validation: metrics on the validation split.
        details: data of plots and examples in the report.
        privacy_cost: privacy loss of its answers for training samples; empty without privacy.
    """

    model_config = ConfigDict(extra="forbid")

    is_scored: bool
    test: dict[str, float]
    validation: dict[str, float]
    details: dict[str, Any]
    privacy_cost: dict[str, Any]


def is_written(folder: RunFolder) -> bool:
    """Whether the teacher of a run was evaluated."""
    return (folder.path / FILE).exists()


def read(folder: RunFolder) -> TeacherRecord | None:
    """Read the scores of the teacher, the same on all ranks.

    None if it was not evaluated yet, or its file is damaged, which is logged.
    """
    return read_record(
        folder.path / FILE, TeacherRecord, REMEDY, "The teacher is evaluated again now."
    )


def write(folder: RunFolder, record: TeacherRecord) -> None:
    """Write the scores of the teacher."""
    folder.write_json(FILE, record.model_dump())


def outputs_path(folder: RunFolder, split: str) -> Path:
    """Return the file with the outputs of the teacher for a split, which workers read."""
    return folder.path / WORKERS / f"teacher-{split}.safetensors"
