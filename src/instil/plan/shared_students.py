"""Finished students and stages that runs share: a cache by fingerprint."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from instil.engine import rank
from instil.files.atomic import atomic
from instil.files.cache import cache_folder
from instil.files.checksums import DamagedFileError, check_tensors, json_with_checksum
from instil.plan import finished_stages, finished_students
from instil.plan.execution_facts import execution_facts
from instil.plan.finished_students import StudentRecord
from instil.plan.job import Job
from instil.plan.plan import Plan
from instil.plan.records import read_on_this_rank
from instil.plan.run_folder import RunFolder
from instil.recipe import fingerprint

log = logging.getLogger("instil")
RECORD, WEIGHTS, IMAGES = "record.json", "weights.safetensors", "images.png"
MEMORY = "memory.safetensors"
LIMIT_VARIABLE = "INSTIL_CACHE_GB"
DEFAULT_LIMIT_GB = 10.0
STALE_SECONDS = 24 * 3600
"""Age after which an incomplete entry was left by a killed process."""


class SharedStudents:
    """Students and stages in ``$INSTIL_CACHE/students``, a folder for each result.

    An entry appears at once, by renaming its folder, and never changes. Several processes may
    therefore read and write the cache at the same time. The entries that were not used for the
    longest time are deleted when the cache exceeds ``$INSTIL_CACHE_GB`` (default: 10).

    Args:
        plan: plan of the run.
        folder: run folder.
    """

    def __init__(self, plan: Plan, folder: RunFolder) -> None:
        self.plan = plan
        self.folder = folder
        self._facts = execution_facts(plan.experiment.recipe)

    def entry(self, job: Job) -> Path:
        """Return the folder of a result in the cache."""
        return cache_folder() / "students" / fingerprint(job.fingerprint, self._facts)

    def is_cached(self, job: Job) -> bool:
        """Whether the cache has the result of a job; its content is not checked."""
        return job.trains_student and (self.entry(job) / WEIGHTS).exists()

    def delete(self) -> None:
        """Delete the results of this plan from the cache."""
        for job in self.plan.students:
            shutil.rmtree(self.entry(job), ignore_errors=True)

    def fetch(self) -> list[Job]:
        """Copy the results that the run lacks from the cache; return their jobs."""
        if not _limit_bytes():
            return []
        pending = [job for job in self.plan.pending(self.folder.path) if self.is_cached(job)]
        # The last stage first: a student that is finished needs no earlier stages.
        fetched = []
        for job in sorted(pending, key=lambda job: not job.is_last):
            is_needed = not self.plan.is_done(job, self.folder.path)
            if is_needed and self._copy_checked(job):
                fetched.append(job)
        return fetched

    def _copy_checked(self, job: Job) -> bool:
        """Copy a result into the run folder; return whether it was intact."""
        entry = self.entry(job)
        try:
            check_tensors(entry / WEIGHTS, "It is deleted")
            if job.is_last:
                self._copy_student(job, entry)
            else:
                stage = (self.folder, job.seed, job.stage_index)
                if (entry / MEMORY).exists():
                    check_tensors(entry / MEMORY, "It is deleted")
                    _copy(entry / MEMORY, finished_stages.memory_path(*stage))
                # The weights last: they mark the stage as finished.
                _copy(entry / WEIGHTS, finished_stages.weights_path(*stage))
            os.utime(entry)
        except (DamagedFileError, OSError) as error:
            # Another process may delete the entry at the same time.
            log.warning("%s: %s The student is trained again now.", entry, error)
            shutil.rmtree(entry, ignore_errors=True)
            return False
        return True

    def _copy_student(self, job: Job, entry: Path) -> None:
        record = read_on_this_rank(entry / RECORD, StudentRecord, "It is deleted", "")
        if record is None:
            raise DamagedFileError(f"{RECORD} is missing or damaged.")
        for name, path in self._files(job, record.others).items():
            if (entry / name).exists():
                _copy(entry / name, path)
        # The record last: it marks the student as finished.
        _copy(entry / RECORD, self.folder.arm_file(job.arm, job.seed, ".json"))

    def publish_training(self, arm: str, seed: int, stage_index: int | None) -> None:
        """Copy a finished student or stage into the cache, unless it is there.

        Args:
            arm: baseline or ``distilled``.
            seed: seed of the student.
            stage_index: index of a stage that others follow; None for the finished student.
        """
        for job in self.plan.students:
            is_stage = job.is_last if stage_index is None else job.stage_index == stage_index
            if (job.arm, job.seed) == (arm, seed) and is_stage:
                self.publish(job)

    def publish(self, job: Job) -> None:
        """Copy the result of a finished job into the cache, unless it is there."""
        entry = self.entry(job)
        limit = _limit_bytes()
        if rank() != 0 or entry.exists() or not limit:
            return
        try:
            _write_entry(entry, lambda part: self._fill(job, part))
            _prune(entry.parent, limit)
        except OSError as error:
            # The result is in the run folder; a full cache must not stop the run.
            log.warning("%s could not be written to the cache: %s", entry, error)

    def _fill(self, job: Job, part: Path) -> None:
        if not job.is_last:
            stage = (self.folder, job.seed, job.stage_index)
            shutil.copyfile(finished_stages.weights_path(*stage), part / WEIGHTS)
            memory = finished_stages.memory_path(*stage)
            if memory.exists():
                shutil.copyfile(memory, part / MEMORY)
            return
        # Only the first rank is here, so that it must not communicate with the others.
        path = self.folder.arm_file(job.arm, job.seed, ".json")
        record = read_on_this_rank(path, StudentRecord, finished_students.REMEDY, "")
        assert record is not None
        for name, path in self._files(job, record.others).items():
            if path.exists():
                shutil.copyfile(path, part / name)
        origin = record.origin or str(self.folder.path.resolve())
        text = json_with_checksum(record.model_dump() | {"origin": origin})
        (part / RECORD).write_text(text, encoding="utf-8")

    def _files(self, job: Job, others: list[str]) -> dict[str, Path]:
        """Files of a student in the cache and in the run folder, without its record."""
        files = {
            WEIGHTS: self.folder.arm_file(job.arm, job.seed, ".safetensors"),
            IMAGES: self.folder.arm_file(job.arm, job.seed, ".png"),
        }
        for name in others:
            files[f"{name}.safetensors"] = finished_students.other_path(self.folder, name, job.seed)
        return files


def _copy(source: Path, target: Path) -> None:
    with atomic(target) as temporary:
        shutil.copyfile(source, temporary)


def _write_entry(entry: Path, fill: Callable[[Path], None]) -> None:
    """Write a folder of the cache completely or not at all."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=entry.parent))
    try:
        fill(part)
        part.chmod(0o755)
        part.rename(entry)
    except OSError:
        # Another process may have written the same result in the meantime.
        if not entry.exists():
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _prune(folder: Path, limit: int) -> None:
    """Delete the oldest entries until the rest fits, and what killed processes left."""
    times = {}
    for entry in folder.iterdir():
        # Other processes finish or delete entries in the meantime.
        with contextlib.suppress(FileNotFoundError):
            times[entry] = entry.stat().st_mtime
    total = 0
    for entry in sorted(times, key=times.__getitem__, reverse=True):
        if entry.name.startswith(".part-"):
            if time.time() - times[entry] > STALE_SECONDS:
                shutil.rmtree(entry, ignore_errors=True)
            continue
        with contextlib.suppress(FileNotFoundError):
            total += sum(path.stat().st_size for path in entry.iterdir())
        if total > limit:
            shutil.rmtree(entry, ignore_errors=True)


def _limit_bytes() -> int:
    """Bytes that the cache may use.

    Raises:
        ValueError: if ``$INSTIL_CACHE_GB`` is not a number of at least 0.
    """
    text = os.environ.get(LIMIT_VARIABLE, "")
    try:
        limit = float(text) if text else DEFAULT_LIMIT_GB
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise ValueError(
            f"{LIMIT_VARIABLE}: expected the size of the cache of students in GB, at least 0, got "
            f"'{text}'. 0 turns the cache off"
        )
    return int(limit * 1e9)
