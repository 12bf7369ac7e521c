"""Shards of one section, computed and written by the processes of a group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from instil.core import Batch, Outputs, batch_size, first_tensor
from instil.store import files
from instil.store.counted import pack
from instil.store.group import Group
from instil.store.manifest import StoredFile, StoreSection
from instil.store.outputs import Tensors, flatten_outputs
from instil.store.reader import row_checksums
from instil.store.shares import Part, divide

PARTS = ".parts"
"""Folder in which processes hand rows of a shard to the process that writes it."""

Batches = Callable[[int, int, int], Iterable[Batch]]
"""``(view, start, end)`` -> batches of the samples ``start`` to ``end`` in a view."""
Predict = Callable[[Batch], Outputs]
"""Batch -> teacher outputs to record."""
CountedTokens = Callable[[Batch], Tensor | None]
"""Batch -> mask (N, T) of the tokens whose outputs are recorded, or None for all."""


@dataclass(frozen=True)
class ShardWriter:
    """Computes and writes the shards of one section.

    Args:
        folder: folder of the store; all processes of the group must see its files.
        section: description of the section.
        batches: batches of a range of samples in a view.
        predict: batch -> outputs.
        counted: mask of the tokens whose outputs are recorded.
        batch_size: number of rows of a batch, which are computed together.
        group: processes that divide the batches among themselves.
    """

    folder: Path
    section: StoreSection
    batches: Batches
    predict: Predict
    counted: CountedTokens
    batch_size: int
    group: Group

    def write(self, shards: Sequence[Part]) -> dict[str, StoredFile]:
        """Compute and write some shards, at most one for each process.

        The first process that computes rows of a shard writes it; the others hand their rows over
        in files.

        Args:
            shards: shards that are missing.

        Returns:
            The written files by name, the same in every process.

        Raises:
            ValueError: if two batches have outputs of different structure, or samples have
                different shapes.
            FileNotFoundError: if the processes do not share the folder.
        """
        shares = divide(shards, self.batch_size, self.group.size)
        own: dict[Part, Tensors] = {}
        offers = self.group.each(lambda: self._compute(shares, own))
        offered = dict(chain.from_iterable(offer.items() for offer in offers))
        results = self.group.each(lambda: self._write_shards(own, offered))
        written = dict(chain.from_iterable(result.items() for result in results))
        self.group.first(lambda: self._check_shared(written))
        return written

    def _compute(
        self, shares: list[list[Part]], own: dict[Part, Tensors]
    ) -> dict[Part, StoredFile]:
        """Compute the rows of this process, and hand over those of other processes' shards."""
        offered: dict[Part, StoredFile] = {}
        for part in shares[self.group.rank]:
            rows = self._rows(part)
            if _writer_of(part.file, shares) == self.group.rank:
                own[part] = rows
            else:
                offered[part] = files.write_tensors(self._handed_over(part), rows)
        return offered

    def _write_shards(
        self, own: dict[Part, Tensors], offered: Mapping[Part, StoredFile]
    ) -> dict[str, StoredFile]:
        """Write the shards whose first rows this process has."""
        written: dict[str, StoredFile] = {}
        for file in sorted({part.file for part in own}):
            rows = {part.start: tensors for part, tensors in own.items() if part.file == file}
            for part, expected in offered.items():
                if part.file == file:
                    path = self._handed_over(part)
                    rows[part.start] = files.read_tensors(path, expected)
                    path.unlink()
            in_order = [rows[start] for start in sorted(rows)]
            written[file] = files.write_tensors(self.folder / file, _joined(in_order))
        return written

    def _rows(self, part: Part) -> Tensors:
        """Compute the rows of a part of a shard."""
        batches = []
        for batch in self.batches(part.view, part.start, part.end):
            rows, _, outputs = flatten_roles(self.predict(batch))
            if outputs != self.section.outputs:
                raise ValueError(
                    "the structure of the teacher's outputs changed during recording. Expected "
                    f"{self.section.outputs}, got {outputs}"
                )
            rows = first_rows(rows, batch) | {"checksum": row_checksums(first_tensor(batch))}
            mask = self.counted(batch) if self.section.counted else None
            if mask is not None:
                rows = pack(rows, self.section.counted, mask)
            batches.append(rows)
        return _joined(batches)

    def _handed_over(self, part: Part) -> Path:
        return self.folder / PARTS / f"{part.start:010d}-{part.file}"

    def _check_shared(self, written: Mapping[str, StoredFile]) -> None:
        missing = [file for file in written if not (self.folder / file).exists()]
        if missing:
            raise FileNotFoundError(
                f"{self.folder} lacks {missing[0]}, which another process wrote. Expected a folder "
                "on a file system that all machines share"
            )


def first_rows(rows: Tensors, batch: Batch) -> Tensors:
    """Return the rows of the samples of a batch, without repeated ones.

    Args:
        rows: tensors (M, ...); M is at least the number of samples.
        batch: the batch.
    """
    return {name: tensor[: batch_size(batch)].cpu() for name, tensor in rows.items()}


def flatten_roles(outputs: Outputs) -> tuple[Tensors, Tensors, dict[str, Any]]:
    """Return the tensors of rows, shared tensors, and the description of each role.

    Args:
        outputs: outputs of a batch.
    """
    rows: Tensors = {}
    constants: Tensors = {}
    descriptions = {
        role: flatten_outputs(value, role, rows, constants) for role, value in outputs.items()
    }
    return rows, constants, descriptions


def _joined(parts: Sequence[Tensors]) -> Tensors:
    """Concatenate the rows of tensors with the same names."""
    try:
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    except RuntimeError as error:
        raise ValueError(
            f"samples of different shapes cannot be recorded; pad them to one length: {error}"
        ) from error


def _writer_of(file: str, shares: Sequence[Sequence[Part]]) -> int:
    """Return the first process that computes rows of a shard."""
    for process, share in enumerate(shares):
        if any(part.file == file for part in share):
            return process
    raise AssertionError(f"{file} is in no share")
