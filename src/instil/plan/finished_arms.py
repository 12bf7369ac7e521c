"""Files of a finished arm: its weights, and its metrics with the records of its training."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from instil.engine import rank, wait_for_ranks
from instil.engine.checkpoints import delete_checkpoint_files
from instil.engine.processes import broadcast_object
from instil.export.student import load_student, save_student
from instil.files.checksums import DamagedFileError, read_json_with_checksum
from instil.plan.run_folder import RunFolder

log = logging.getLogger("instil")
REMEDY = "Delete it, and this arm is trained again"


class FinishedArm(BaseModel):
    """Metrics on the test and validation splits, what there is to draw, seconds, and training records."""

    model_config = ConfigDict(extra="forbid")

    test: dict[str, float]
    validation: dict[str, float]
    details: dict[str, Any]
    seconds: float
    records: list[dict[str, Any]]


def read(folder: RunFolder, name: str, seed: int) -> FinishedArm | None:
    """Read what ``write`` wrote.

    Args:
        folder: of the run.
        name: of the arm.
        seed: of the arm.

    Returns:
        The arm, or None if it is not finished or its files are damaged, which is logged: the arm is
        trained again then. All ranks get the same answer.
    """
    return broadcast_object(_read(folder, name, seed) if rank() == 0 else None)  # type: ignore[no-any-return]


def _read(folder: RunFolder, name: str, seed: int) -> FinishedArm | None:
    path = folder.arm_file(name, seed, ".json")
    if not path.exists():
        return None
    try:
        content = read_json_with_checksum(path, REMEDY)
        return FinishedArm.model_validate(content)
    except DamagedFileError as error:
        log.warning("%s It is trained again now.", error)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        log.warning("%s: %s: %s. The arm is trained again now.", path, where, problem["msg"])
    return None


def load_weights(folder: RunFolder, name: str, seed: int, net: nn.Module) -> bool:
    """Fill a net with the weights of a finished arm.

    Args:
        folder: of the run.
        name: of the arm.
        seed: of the arm.
        net: of the arm's architecture.

    Returns:
        Whether it worked; a missing or damaged file is logged, the same on all ranks.

    Raises:
        ValueError: if the weights are those of another architecture.
    """
    path = folder.arm_file(name, seed, ".safetensors")
    problem: str | None = None
    try:
        load_student(net, path)
    except DamagedFileError as error:
        problem = str(error)
    problem = broadcast_object(problem)
    if problem is not None and rank() == 0:
        log.warning("%s The arm is trained again now.", problem)
    return problem is None


def write(
    folder: RunFolder, name: str, seed: int, net: nn.Module, arm: dict[str, Any], stages: int
) -> None:
    """Write a finished arm; its checkpoints go when both files are on the disk.

    Args:
        folder: of the run.
        name: of the arm.
        seed: of the arm.
        net: with whole weights.
        arm: the fields of ``FinishedArm``.
        stages: number of trainings that have a checkpoint.
    """
    path = folder.arm_file(name, seed, ".json")
    if rank() == 0:
        save_student(net, path.with_suffix(".safetensors"))
    folder.write_json(f"checkpoint/{path.name}", arm)
    wait_for_ranks()
    delete_checkpoints(folder, name, seed, stages)


def delete_checkpoints(folder: RunFolder, name: str, seed: int | None, stages: int) -> None:
    """Delete the checkpoints of an arm; of several ranks only the first does."""
    for stage in range(stages):
        delete_checkpoint_files(checkpoint(folder, name, seed, stage))


def checkpoint(folder: RunFolder, name: str, seed: int | None, stage: int) -> Path:
    """Where the checkpoint of a stage of an arm is."""
    return folder.arm_file(name, seed, f"-stage{stage}.pt")
