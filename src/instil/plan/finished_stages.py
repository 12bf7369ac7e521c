"""Files of a finished stage of a student that later stages follow."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from instil.engine import rank, wait_for_ranks
from instil.engine.checkpoint_paths import delete_checkpoint_files
from instil.engine.processes import broadcast_object
from instil.export.student import load_student, save_student
from instil.files.atomic import atomic
from instil.files.checksums import (
    NO_DIGEST,
    TENSORS_KEY,
    DamagedFileError,
    check_tensors,
    seal_tensors,
)
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


def memory_path(folder: RunFolder, seed: int, stage_index: int) -> Path:
    """Return the file with the memory of the scheme of a finished stage.

    It is deleted with the weights.

    Args:
        folder: run folder.
        seed: seed of the training.
        stage_index: index of the stage.
    """
    return weights_path(folder, seed, stage_index).with_suffix(".memory.safetensors")


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


def read_memory(folder: RunFolder, seed: int, stage_index: int) -> dict[str, Tensor]:
    """Read the memory of the scheme of a finished stage; empty if the scheme has none.

    Args:
        folder: run folder.
        seed: seed of the training.
        stage_index: index of the stage.

    Raises:
        DamagedFileError: if the content of the file differs from its checksum.
    """
    path = memory_path(folder, seed, stage_index)
    if not path.exists():
        return {}
    check_tensors(path, "Delete the files of this stage, and it is trained again")
    return load_file(path)


def write_memory(
    folder: RunFolder, seed: int, stage_index: int, memory: Mapping[str, Tensor]
) -> None:
    """Write the memory of the scheme of a stage; to be called before ``write``.

    Args:
        folder: run folder.
        seed: seed of the training.
        stage_index: index of the stage.
        memory: content of the memory.
    """
    if rank() == 0:
        with atomic(memory_path(folder, seed, stage_index)) as temporary:
            save_file(dict(memory), temporary, {TENSORS_KEY: NO_DIGEST})
            seal_tensors(temporary)


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
