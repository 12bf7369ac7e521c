"""Files of a finished student: its weights, and its metrics with the records of its training."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import nn

from instil.engine import rank, wait_for_ranks
from instil.engine.checkpoint_paths import delete_checkpoint_files
from instil.engine.processes import broadcast_object
from instil.export.student import load_student, save_student
from instil.files.checksums import DamagedFileError
from instil.plan.records import read_record
from instil.plan.run_folder import RunFolder

log = logging.getLogger("instil")
REMEDY = "Delete it, and this student is trained again"


class StudentRecord(BaseModel):
    """Content of the JSON file of a finished student.

    Attributes:
        test: metrics on the test split.
        validation: metrics on the validation split.
        details: data of plots and examples in the report.
        seconds: time of the training.
        records: lines of ``metrics.jsonl``.
        others: names of further students, such as the peers of mutual learning.
        origin: run folder that trained the student; empty for the run itself.
    """

    model_config = ConfigDict(extra="forbid")

    test: dict[str, float]
    validation: dict[str, float]
    details: dict[str, Any]
    seconds: float
    records: list[dict[str, Any]]
    others: list[str] = []
    origin: str = ""


def is_written(folder: RunFolder, name: str, seed: int) -> bool:
    """Whether both files of a student are on the disk; their content is not checked.

    Args:
        folder: run folder.
        name: name of a baseline, or ``distilled``.
        seed: seed of the training.
    """
    suffixes = (".json", ".safetensors")
    return all(folder.arm_file(name, seed, suffix).exists() for suffix in suffixes)


def read(folder: RunFolder, name: str, seed: int) -> StudentRecord | None:
    """Read the record of a finished student.

    Args:
        folder: run folder.
        name: name of a baseline, or ``distilled``.
        seed: seed of the training.

    Returns:
        The record, the same on all ranks. None if the student is not finished; also if its files
        are damaged, which is logged, so that it is trained again.
    """
    path = folder.arm_file(name, seed, ".json")
    return read_record(path, StudentRecord, REMEDY, "The student is trained again now.")


def load_weights(folder: RunFolder, name: str, seed: int, net: nn.Module) -> bool:
    """Load the weights of a finished student.

    Args:
        folder: run folder.
        name: name of a baseline, or ``distilled``.
        seed: seed of the training.
        net: network of the student's architecture.

    Returns:
        Whether that worked, the same on all ranks. A missing or damaged file is logged.

    Raises:
        ValueError: if the weights belong to another architecture.
    """
    path = folder.arm_file(name, seed, ".safetensors")
    problem: str | None = None
    try:
        load_student(net, path)
    except DamagedFileError as error:
        problem = str(error)
    problem = broadcast_object(problem)
    if problem is not None and rank() == 0:
        log.warning("%s The student is trained again now.", problem)
    return problem is None


def write(
    folder: RunFolder,
    name: str,
    seed: int,
    net: nn.Module,
    record: dict[str, Any],
    num_stages: int,
) -> None:
    """Write the files of a finished student, then delete its checkpoints.

    Args:
        folder: run folder.
        name: name of a baseline, or ``distilled``.
        seed: seed of the training.
        net: network with whole weights.
        record: fields of ``StudentRecord``.
        num_stages: number of training stages, each with a checkpoint.
    """
    path = folder.arm_file(name, seed, ".json")
    # The weights first: the record marks the student as finished.
    if rank() == 0:
        save_student(net, path.with_suffix(".safetensors"))
    folder.write_json(f"checkpoint/{path.name}", record)
    wait_for_ranks()
    delete_checkpoints(folder, name, seed, num_stages)


def delete_checkpoints(folder: RunFolder, name: str, seed: int | None, num_stages: int) -> None:
    """Delete the checkpoints of a training, and the files of its finished stages.

    Of several ranks only the first deletes them.

    Args:
        folder: run folder.
        name: name of the training.
        seed: seed of a student, None for a teacher.
        num_stages: number of training stages, each with a checkpoint.
    """
    for stage_index in range(num_stages):
        path = checkpoint(folder, name, seed, stage_index)
        delete_checkpoint_files(path)
        if rank() == 0:
            for suffix in (".safetensors", ".memory.safetensors"):
                path.with_suffix(suffix).unlink(missing_ok=True)


def other_path(folder: RunFolder, learner: str, seed: int) -> Path:
    """Return the file with the weights of a further student.

    Args:
        folder: run folder.
        learner: name of the student in its scheme.
        seed: seed of the training.
    """
    return folder.path / f"{learner}-{seed}.safetensors"


def checkpoint(folder: RunFolder, name: str, seed: int | None, stage_index: int) -> Path:
    """Return the path of the checkpoint of one stage of a training.

    Args:
        folder: run folder.
        name: name of the training.
        seed: seed of a student, None for a teacher.
        stage_index: index of the training stage.
    """
    return folder.arm_file(name, seed, f"-stage{stage_index}.pt")
