"""Files of a run folder; a file is always complete, or missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from instil.engine import rank
from instil.files.atomic import atomic
from instil.files.checksums import json_with_checksum, read_json_with_checksum

METRICS = "metrics.jsonl"
WORKERS = "checkpoint/workers"
"""Folder of locks, records, messages and teacher outputs that only workers of a run need.

It is deleted when their jobs are finished.
"""
RESUME_REMEDY = "Restore it from a copy, or resume the run (--resume), which writes it again"


class RunFolder:
    """Folder with ``recipe.yaml``, ``environment.json``, ``metrics.jsonl``, ``result.json``, ...

    Files of one arm are in the subfolder ``checkpoint``. With several ranks only the first
    writes.

    Args:
        path: path of the folder.

    Attributes:
        metrics_file: name of the file of all records; every worker has one of its own.
        on_log: callback for every logged record, called on every rank.
    """

    def __init__(self, path: Path):
        self.path = path
        self.metrics_file = METRICS
        self.on_log: Callable[[dict[str, Any]], None] = lambda record: None

    def write(self, name: str, text: str) -> None:
        """Write a text file, or replace it."""
        if rank() == 0:
            with atomic(self.path / name) as temporary:
                temporary.write_text(text, encoding="utf-8")

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Write an object as a JSON file with a checksum, or replace the file."""
        self.write(name, json_with_checksum(value))

    def read_json(self, name: str, remedy: str = RESUME_REMEDY) -> dict[str, Any] | None:
        """Read a JSON file and verify its checksum.

        Args:
            name: name of the file.
            remedy: advice for a damaged file, without a full stop.

        Returns:
            The object, or None if the file does not exist.

        Raises:
            DamagedFileError: if the file is damaged.
        """
        path = self.path / name
        return read_json_with_checksum(path, remedy) if path.exists() else None

    def log(self, record: dict[str, Any]) -> None:
        """Append a record to ``metrics.jsonl``."""
        self.on_log(record)
        if rank() == 0:
            with (self.path / self.metrics_file).open("a", encoding="utf-8") as file:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def remove_records(self, arm: str, seed: int | None) -> None:
        """Remove the records of an arm from ``metrics.jsonl``.

        Called before the arm is trained again, or before its records are logged again from a
        checkpoint. Incomplete lines are removed too.

        Args:
            arm: name of the arm.
            seed: seed of the arm, None for a teacher.
        """
        path = self.path / self.metrics_file
        if not path.exists():
            return
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        remaining = [line for line in lines if _arm_and_seed(line) not in (None, (arm, seed))]
        self.write(self.metrics_file, "".join(line + "\n" for line in remaining))

    def arm_file(self, arm: str, seed: int | None, suffix: str) -> Path:
        """Path of a file of an arm in ``checkpoint/``.

        Args:
            arm: name of the arm.
            seed: seed of the arm, None for a teacher.
            suffix: end of the file name, such as ``.safetensors``.
        """
        stem = arm if seed is None else f"{arm}-{seed}"
        return self.path / "checkpoint" / f"{stem}{suffix}"

    def delete_worker_files(self) -> None:
        """Delete the folder of the workers."""
        if rank() == 0:
            shutil.rmtree(self.path / WORKERS, ignore_errors=True)


def _arm_and_seed(line: str) -> tuple[str, int | None] | None:
    """Arm and seed of a record; None for an incomplete line."""
    # A full disk or a killed process may leave a part of a line.
    try:
        record = json.loads(line)
        return record["arm"], record["seed"]
    except (ValueError, TypeError, KeyError):
        return None
