"""Records of finished jobs, read with their checks."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from instil.engine import rank
from instil.engine.processes import broadcast_object
from instil.files.checksums import DamagedFileError, read_json_with_checksum

log = logging.getLogger("instil")
RecordT = TypeVar("RecordT", bound=BaseModel)


def read_record(path: Path, kind: type[RecordT], remedy: str, consequence: str) -> RecordT | None:
    """Read the JSON file of a finished job.

    Args:
        path: the file.
        kind: class of the record.
        remedy: advice for a damaged file, without a full stop.
        consequence: sentence about what happens now, for the log.

    Returns:
        The record, the same on all ranks. None if the file is missing; also if it is damaged,
        which is logged.
    """
    # The first rank decides for all: the file may appear while other ranks look for it.
    record = read_on_this_rank(path, kind, remedy, consequence) if rank() == 0 else None
    return broadcast_object(record)  # type: ignore[no-any-return]


def read_on_this_rank(
    path: Path, kind: type[RecordT], remedy: str, consequence: str
) -> RecordT | None:
    """Read a record as ``read_record`` does, without communication with other ranks.

    Args:
        path: the file.
        kind: class of the record.
        remedy: advice for a damaged file, without a full stop.
        consequence: sentence about what happens now, for the log.
    """
    if not path.exists():
        return None
    try:
        return kind.model_validate(read_json_with_checksum(path, remedy))
    except DamagedFileError as error:
        log.warning("%s %s", error, consequence)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        log.warning("%s: %s: %s. %s", path, key, problem["msg"], consequence)
    return None
