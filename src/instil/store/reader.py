"""Reads recorded answers by sample and view, from memory-mapped files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from instil.core import Outputs
from instil.store import files
from instil.store.files import REMEDY
from instil.store.manifest import StoreSection, read_manifest
from instil.store.outputs import Tensors, tensor_names, unflatten_outputs


class Store:
    """The recorded answers at a path or URL; ``read`` may be called in any process, each opens the files for itself.

    Raises FileNotFoundError where there is no store, ValueError for one that is not complete or of another format.
    """

    def __init__(self, place: str):
        self.place, self.manifest = place.rstrip("/"), read_manifest(place)
        if not self.manifest.complete:
            raise ValueError(
                f"the store {place} is not complete: its recording was stopped; go on with it by the same command (instil record)"
            )
        self._open: dict[str, Tensors] = {}
        # Of each section the sample numbers in ascending order, and where each of them stands.
        self._rows: dict[str, tuple[Tensor, Tensor]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}, "_rows": {}}

    def check(self, wanted: Mapping[str, Any]) -> None:
        """ValueError that says what has changed since the answers were recorded."""
        if changed := self.manifest.differences(wanted):
            raise ValueError(
                f"the store {self.place} does not fit this recipe: {'; '.join(changed)}. Record it anew (instil record)"
            )

    def roles(self, section: str) -> set[str]:
        """What the answers of a section hold."""
        return set(self._section(section).outputs)

    def read(self, name: str, index: Tensor, view: Tensor) -> tuple[Outputs, Tensor]:
        """The answers to samples ``index`` (N,) in their ``view`` (N,), and the checksum (N,) of the input that each answers.

        Raises ValueError for a sample or view that was not recorded, and for damaged files.
        """
        section = self._section(name)
        rows = self._row(name, section, index, view)
        shards = torch.div(rows, section.rows, rounding_mode="floor")
        parts: dict[str, Tensor] = {}
        keys = torch.stack([view, shards], 1)
        for one in torch.unique(keys, dim=0):
            among = (keys == one).all(1)
            start = int(one[1]) * section.rows
            file = section.shard(name, int(one[0]), start)
            tensors = self._shard(file, section, start)
            local = rows[among] - start
            for key, tensor in tensors.items():
                if key not in parts:
                    parts[key] = tensor.new_empty(len(rows), *tensor.shape[1:])
                if tensor.shape[1:] != parts[key].shape[1:]:
                    raise self._inconsistent(file, f"'{key}' has another shape than elsewhere")
                parts[key][among] = tensor[local]
        checksum = parts.pop("checksum")
        parts |= self._constants(section)
        return {
            role: unflatten_outputs(how, parts) for role, how in section.outputs.items()
        }, checksum

    def _section(self, name: str) -> StoreSection:
        sections = self.manifest.sections
        if name not in sections:
            raise ValueError(
                f"the store {self.place} has no section '{name}', only {', '.join(sections)}."
                f" {REMEDY}"
            )
        return sections[name]

    def _row(self, name: str, section: StoreSection, index: Tensor, view: Tensor) -> Tensor:
        """Where in a view each sample stands."""
        if name not in self._rows:
            self._rows[name] = self._recorded_index(section).sort()
        recorded, order = self._rows[name]
        position = torch.searchsorted(recorded, index).clamp_max(len(recorded) - 1)
        if len(lost := index[recorded[position] != index]):
            raise ValueError(
                f"sample {int(lost[0])} is not in the store {self.place}, which has {section.count} samples; record it anew"
            )
        if len(later := view[view >= section.views]):
            raise ValueError(
                f"view {int(later[0])} is not in the store {self.place}, which has {section.views}; "
                "set data.augment.views to the number of views to record, and record them"
            )
        return order[position]

    def _recorded_index(self, section: StoreSection) -> Tensor:
        index = self._tensors(section.index).get("index")
        if index is None or index.dtype != torch.int64 or index.shape != (section.count,):
            raise self._inconsistent(section.index, f"there are no {section.count} sample numbers")
        return index

    def _shard(self, file: str, section: StoreSection, start: int) -> Tensors:
        """The tensors of a shard, of which each has a row for each of its samples."""
        tensors = self._tensors(file)
        count = min(section.rows, section.count - start)
        for name in {"checksum", *tensor_names(section.outputs, "rows")}:
            if name not in tensors or tensors[name].ndim < 1 or len(tensors[name]) != count:
                raise self._inconsistent(file, f"'{name}' does not have {count} rows")
        if tensors["checksum"].dtype != torch.int64 or tensors["checksum"].ndim != 1:
            raise self._inconsistent(file, "'checksum' does not hold a number for each row")
        return {name: tensor for name, tensor in tensors.items() if tensor.ndim}

    def _constants(self, section: StoreSection) -> Tensors:
        """The tensors that all rows share."""
        tensors = {} if section.constants is None else self._tensors(section.constants)
        for name in tensor_names(section.outputs, "constant"):
            if name not in tensors:
                file = section.constants or "manifest.json"
                raise self._inconsistent(file, f"there is no '{name}'")
        return tensors

    def _tensors(self, file: str) -> Tensors:
        if file not in self._open:
            if file not in self.manifest.files:
                raise ValueError(f"the store {self.place} does not list {file}. {REMEDY}")
            url = f"{self.place}/{file}"
            _check_inside(self.place, file)
            path = files.fetch_unpacked(url, self.manifest.files[file])
            self._open[file] = files.map_tensors(path, url)
        return self._open[file]

    def _inconsistent(self, file: str, problem: str) -> ValueError:
        return ValueError(f"{self.place}/{file} does not fit its manifest: {problem}. {REMEDY}")


def _check_inside(place: str, file: str) -> None:
    """ValueError where a file of a local store is a link to a file outside it."""
    if "://" in place and not place.startswith("file://"):
        return
    folder = Path(place.removeprefix("file://")).expanduser().resolve()
    if (folder / file).resolve().parent != folder:
        raise ValueError(
            f"{place}/{file}: the file is a link out of the store. Expected a file of its own;"
            " put a copy in its place"
        )


def row_checksums(values: Tensor) -> Tensor:
    """A number (N,) for each row of a tensor, exact whatever the batch around it: of the bits, each weighed by its place."""
    flat = (
        values.detach().cpu().flatten(1).contiguous()
        if values.ndim > 1
        else values.detach().cpu()[:, None].contiguous()
    )
    kind = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[flat.element_size()]
    bits = (flat.to(torch.uint8) if flat.dtype == torch.bool else flat).view(kind).to(torch.int64)
    places = (
        torch.arange(1, bits.shape[1] + 1) * 0x5851F42D4C957F2D
    ) | 1  # odd numbers that look random
    return (bits * places).sum(1)
