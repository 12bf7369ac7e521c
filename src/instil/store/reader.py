"""Recorded outputs by sample and view, from memory-mapped files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from instil.core import Outputs
from instil.store import files
from instil.store.counted import COUNTED, num_counted, unpack
from instil.store.files import REMEDY
from instil.store.manifest import StoreSection, read_manifest
from instil.store.outputs import Tensors, tensor_names, unflatten_outputs

MIXER = 0x5851F42D4C957F2D
"""Multiplier that turns positions into weights that look random."""
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Store:
    """Recorded outputs at a path or URL.

    Any process may read; each one opens the files for itself.

    Args:
        url: path or URL of the folder.

    Raises:
        FileNotFoundError: if there is no store.
        ValueError: if the store is not complete, is damaged, or has another format.
    """

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        self.manifest = read_manifest(url)
        if not self.manifest.complete:
            raise ValueError(
                f"the store {url} is not complete: its recording was stopped. Continue it with the "
                "same command (instil record)"
            )
        self._files: dict[str, Tensors] = {}
        # For each section, the sample indices in ascending order and the row of each one.
        self._rows: dict[str, tuple[Tensor, Tensor]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Memory maps cannot be pickled: the other process opens the files again.
        return self.__dict__ | {"_files": {}, "_rows": {}}

    def check(self, binding: Mapping[str, Any]) -> None:
        """Check that the outputs were recorded from the same inputs.

        Args:
            binding: current values of the inputs.

        Raises:
            ValueError: with all differences.
        """
        if differences := self.manifest.differences(binding):
            raise ValueError(
                f"the store {self.url} does not match this recipe: {'; '.join(differences)}. "
                "Record it again (instil record)"
            )

    def roles(self, section: str) -> set[str]:
        """Return the roles of the outputs in a section.

        Args:
            section: name of the section.
        """
        return set(self._section(section).outputs)

    def read(self, name: str, index: Tensor, view: Tensor) -> tuple[Outputs, Tensor]:
        """Read recorded outputs.

        Args:
            name: name of the section.
            index: sample indices (N,).
            view: view of each sample (N,).

        Returns:
            The outputs, and the checksum (N,) of the input that each row was recorded for.

        Raises:
            ValueError: for a sample or view that was not recorded, and for damaged files.
        """
        section = self._section(name)
        rows = self._find_rows(name, section, index, view)
        parts = self._gather(name, section, rows, view)
        checksum = parts.pop("checksum")
        parts |= self._constants(section)
        outputs = {role: unflatten_outputs(how, parts) for role, how in section.outputs.items()}
        return outputs, checksum

    def _gather(self, name: str, section: StoreSection, rows: Tensor, view: Tensor) -> Tensors:
        """Collect the tensors of rows, one shard at a time."""
        shards = torch.div(rows, section.rows, rounding_mode="floor")
        keys = torch.stack([view, shards], 1)
        parts: Tensors = {}
        for key in torch.unique(keys, dim=0):
            in_shard = (keys == key).all(1)
            start = int(key[1]) * section.rows
            file = section.shard(name, int(key[0]), start)
            local = rows[in_shard] - start
            for role, tensor in _rows_of(self._shard(file, section, start), section, local).items():
                if role not in parts:
                    parts[role] = tensor.new_empty(len(rows), *tensor.shape[1:])
                if tensor.shape[1:] != parts[role].shape[1:]:
                    raise self._inconsistent(file, f"'{role}' has another shape than elsewhere")
                parts[role][in_shard] = tensor
        return parts

    def _section(self, name: str) -> StoreSection:
        sections = self.manifest.sections
        if name not in sections:
            raise ValueError(
                f"the store {self.url} has no section '{name}', only {', '.join(sections)}."
                f" {REMEDY}"
            )
        return sections[name]

    def _find_rows(self, name: str, section: StoreSection, index: Tensor, view: Tensor) -> Tensor:
        """Return the row of each sample within a view."""
        if name not in self._rows:
            self._rows[name] = self._recorded_index(section).sort()
        recorded, order = self._rows[name]
        position = torch.searchsorted(recorded, index).clamp_max(len(recorded) - 1)
        if len(missing := index[recorded[position] != index]):
            raise ValueError(
                f"sample {int(missing[0])} is not in the store {self.url}, which has "
                f"{section.count} samples; record it again"
            )
        if len(missing := view[view >= section.views]):
            raise ValueError(
                f"view {int(missing[0])} is not in the store {self.url}, which has "
                f"{section.views}; set data.augment.views to the number of views to record, and "
                "record them"
            )
        return order[position]

    def _recorded_index(self, section: StoreSection) -> Tensor:
        index = self._tensors(section.index).get("index")
        if index is None or index.dtype != torch.int64 or index.shape != (section.count,):
            raise self._inconsistent(section.index, f"there are no {section.count} sample indices")
        return index

    def _shard(self, file: str, section: StoreSection, start: int) -> Tensors:
        """Return the tensors of a shard, after a check that each has one row for each sample."""
        tensors = self._tensors(file)
        count = min(section.rows, section.count - start)
        names = {"checksum", *tensor_names(section.outputs, "rows")} - set(section.counted)
        sizes = dict.fromkeys(names, count)
        if section.counted:
            mask = tensors.get(COUNTED)
            if mask is None or mask.dtype != torch.bool or mask.ndim != 2 or len(mask) != count:
                raise self._inconsistent(file, f"'{COUNTED}' is not a mask of {count} rows")
            sizes |= dict.fromkeys(section.counted, num_counted(mask))
        for name, size in sizes.items():
            if name not in tensors or tensors[name].ndim < 1 or len(tensors[name]) != size:
                raise self._inconsistent(file, f"'{name}' does not have {size} rows")
        if tensors["checksum"].dtype != torch.int64 or tensors["checksum"].ndim != 1:
            raise self._inconsistent(file, "'checksum' is not one integer for each row")
        return {name: tensor for name, tensor in tensors.items() if tensor.ndim}

    def _constants(self, section: StoreSection) -> Tensors:
        """Return the tensors that all rows share."""
        tensors = {} if section.constants is None else self._tensors(section.constants)
        for name in tensor_names(section.outputs, "constant"):
            if name not in tensors:
                file = section.constants or "manifest.json"
                raise self._inconsistent(file, f"there is no '{name}'")
        return tensors

    def _tensors(self, file: str) -> Tensors:
        if file not in self._files:
            if file not in self.manifest.files:
                raise ValueError(f"the store {self.url} does not list {file}. {REMEDY}")
            url = f"{self.url}/{file}"
            _check_inside(self.url, file)
            path = files.fetch_unpacked(url, self.manifest.files[file])
            self._files[file] = files.map_tensors(path, url)
        return self._files[file]

    def _inconsistent(self, file: str, problem: str) -> ValueError:
        return ValueError(f"{self.url}/{file} does not match its manifest: {problem}. {REMEDY}")


def _rows_of(tensors: Tensors, section: StoreSection, rows: Tensor) -> Tensors:
    """Return rows (n, ...) of the tensors of a shard."""
    packed = {COUNTED, *section.counted} if section.counted else set()
    own = {name: tensor[rows] for name, tensor in tensors.items() if name not in packed}
    if not packed:
        return own
    mask = tensors[COUNTED]
    return own | {name: unpack(tensors[name], mask, rows) for name in section.counted}


def _check_inside(url: str, file: str) -> None:
    """Raise ValueError if a file of a local store is a link to a file outside the store."""
    if "://" in url and not url.startswith("file://"):
        return
    folder = Path(url.removeprefix("file://")).expanduser().resolve()
    if (folder / file).resolve().parent != folder:
        raise ValueError(
            f"{url}/{file}: the file is a link out of the store. Expected a regular file. Replace "
            "the link by a copy"
        )


def row_checksums(values: Tensor) -> Tensor:
    """Compute an exact checksum of the bits of each row, independent of the other rows.

    Args:
        values: (N, ...) of any type.

    Returns:
        Weighted sums of the bits as integers (N,), where the weights depend on the position.
    """
    rows = values.detach().cpu()
    rows = (rows.flatten(1) if rows.ndim > 1 else rows[:, None]).contiguous()
    integers = INTEGERS[rows.element_size()]
    if rows.dtype == torch.bool:
        rows = rows.to(torch.uint8)
    bits = rows.view(integers).to(torch.int64)
    # Odd weights are invertible modulo 2**64, so any change of one entry changes the sum.
    weights = (torch.arange(1, bits.shape[1] + 1) * MIXER) | 1
    return (bits * weights).sum(1)
