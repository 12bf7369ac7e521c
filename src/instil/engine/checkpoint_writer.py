"""Writer of checkpoints: a file at once, or the folder of a sharded training during its steps."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.optim import Optimizer

import instil.engine.checkpoints as checkpoints
from instil.core import Scheme
from instil.engine.checkpoint_paths import commit_folder, remove, unfinished_path
from instil.engine.processes import gather_objects, rank, run_on_first_rank
from instil.engine.sharded_checkpoints import VALUES, flatten_state
from instil.files.checksums import append_checksum


class CheckpointWriter:
    """Writer of one checkpoint at a time. Call it on every rank.

    Args:
        is_sharded: whether every rank writes its shards during the next steps. Otherwise the first
            one writes a file at once.
    """

    def __init__(self, is_sharded: bool) -> None:
        self._is_sharded = is_sharded
        self._threads = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None
        self._path = Path()

    def save(
        self,
        path: Path,
        scheme: Scheme,
        optimizers: dict[str, Optimizer],
        own: dict[str, Any],
        extra: dict[str, Any],
    ) -> None:
        """Write a checkpoint, or copy the state to the memory of the machine and start to write it.

        Args:
            path: path of the checkpoint. It appears when it is complete; the one before it is kept
                under another name.
            scheme: scheme; teachers that do not change are not saved.
            optimizers: optimizer of each learner.
            own: picklable values of this rank.
            extra: values that all ranks share.

        Raises:
            OSError: if this or the last checkpoint cannot be written; the last good one stays.
        """
        if not self._is_sharded:
            checkpoints.save(path, scheme, optimizers, own, extra)
            return
        self.finish()
        self._path = path
        temporary = unfinished_path(path)
        tensors, groups = flatten_state(scheme, optimizers)
        values = {"groups": groups, "ranks": gather_objects(own), "extra": extra}
        run_on_first_rank(lambda: _start(temporary, values))
        copied = async_save(tensors, checkpoint_id=temporary, process_group=_background_group())
        assert isinstance(copied, Future)
        self._pending = self._threads.submit(_complete, copied, temporary, path)

    def finish(self) -> None:
        """Wait until the last checkpoint is written.

        Raises:
            OSError: if a rank could not write it; the last good one stays.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        error = pending.exception()
        reasons = [reason for reason in gather_objects(error and str(error)) if reason]
        if reasons:
            raise OSError(
                f"checkpoint {self._path} could not be written; the last good one stays: "
                f"{reasons[0]}"
            ) from error

    @contextlib.contextmanager
    def completed_after_error(self) -> Iterator[None]:
        """Context of a training: an error leaves it when the checkpoint in progress is written.

        The process may go on and write the same checkpoint again, as a notebook does.
        """
        try:
            yield
        except BaseException:
            if self._pending is not None:
                wait([self._pending])
            raise


@functools.cache
def _background_group() -> dist.ProcessGroup:
    """Group of all processes, whose messages do not mix with those of the steps."""
    group = dist.new_group(backend="gloo")
    assert isinstance(group, dist.ProcessGroup)
    return group


def _start(folder: Path, values: dict[str, Any]) -> None:
    """Create the folder of a new checkpoint, with the values that are not sharded."""
    remove(folder)
    folder.mkdir(parents=True)
    torch.save(values, folder / VALUES)
    append_checksum(folder / VALUES)


def _complete(copied: Future[Any], temporary: Path, path: Path) -> None:
    """Wait for the shards of all ranks, then give the folder its name on the first one."""
    copied.result()
    if rank() == 0:
        commit_folder(temporary, path)
