"""Files of a finished stage of a student that later stages follow."""

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
from instil.files.checksums import DamagedFileError
from instil.plan.finished_students import checkpoint
from instil.plan.run_folder import RunFolder

log = logging.getLogger("instil")


class StageRecord(BaseModel):
    """Description in the file of a finished stage.

    Attributes:
        seconds: time of the training.
        records: lines of ``metrics.jsonl``.
    """

    model_config = ConfigDict(extra="forbid")

    seconds: float
    records: list[dict[str, Any]]


def weights_path(folder: RunFolder, seed: int, stage_index: int) -> Path:
    """Return the file with weights and record of a finished stage of the distilled student.

    It is deleted when the student is finished.

    Args:
        folder: run folder.
        seed: seed of the training.
        stage_index: index of the stage.
    """
    return checkpoint(folder, "distilled", seed, stage_index).with_suffix(".safetensors")


def is_written(folder: RunFolder, seed: int, stage_index: int) -> bool:
    """Whether the file of a stage is on the disk, the same on all ranks.

    Args:
        folder: run folder.
        seed: seed of the training.
        stage_index: index of the stage.
    """
    return bool(broadcast_object(weights_path(folder, seed, stage_index).exists()))


def read(folder: RunFolder, seed: int, stage_index: int, net: nn.Module) -> StageRecord | None:
    """Load the weights of a finished stage.

    Args:
        folder: run folder.
        seed: seed of the training.
        stage_index: index of the stage.
        net: network of the architecture that the stage returns.

    Returns:
        The record of its training, the same on all ranks. None if the stage is not finished; also
        if its file is damaged, which is logged, so that it is trained again.
    """
    path = weights_path(folder, seed, stage_index)
    record: StageRecord | None = broadcast_object(_read(path, net) if rank() == 0 else None)
    if record is not None and rank() != 0:
        load_student(net, path)
    return record


def _read(path: Path, net: nn.Module) -> StageRecord | None:
    if not path.exists():
        return None
    try:
        return StageRecord.model_validate(load_student(net, path))
    except DamagedFileError as error:
        reason = str(error)
    except ValidationError:
        reason = f"{path}: its description is not that of this version."
    log.warning("%s The stage is trained again now.", reason)
    return None


def write(
    folder: RunFolder, seed: int, stage_index: int, net: nn.Module, record: dict[str, Any]
) -> None:
    """Write the file of a finished stage, then delete its checkpoints.

    Args:
        folder: run folder.
        seed: seed of the training.
        stage_index: index of the stage.
        net: network with whole weights.
        record: fields of ``StageRecord``.
    """
    if rank() == 0:
        save_student(net, weights_path(folder, seed, stage_index), record)
    wait_for_ranks()
    delete_checkpoint_files(checkpoint(folder, "distilled", seed, stage_index))
