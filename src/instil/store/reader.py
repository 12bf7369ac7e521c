"""Reads recorded answers by sample and view, from memory-mapped files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from instil.core import Outputs
from instil.store import files
from instil.store.manifest import Section, read_manifest
from instil.store.outputs import Tensors, put_together


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
        self._rows: dict[str, Tensor] = {}

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
        return set(self.manifest.sections[section].outputs)

    def read(self, name: str, index: Tensor, view: Tensor) -> tuple[Outputs, Tensor]:
        """The answers to samples ``index`` (N,) in their ``view`` (N,), and the checksum (N,) of the input that each answers.

        Raises ValueError for a sample or view that was not recorded.
        """
        section = self.manifest.sections[name]
        rows = self._row(name, section, index, view)
        shards = torch.div(rows, section.rows, rounding_mode="floor")
        parts: dict[str, Tensor] = {}
        keys = torch.stack([view, shards], 1)
        for one in torch.unique(keys, dim=0):
            among = (keys == one).all(1)
            tensors = self._tensors(section.shard(name, int(one[0]), int(one[1]) * section.rows))
            local = rows[among] - one[1] * section.rows
            for key, tensor in tensors.items():
                if key not in parts:
                    parts[key] = tensor.new_empty(len(rows), *tensor.shape[1:])
                parts[key][among] = tensor[local]
        checksum = parts.pop("checksum")
        if section.constants:
            parts |= self._tensors(section.constants)
        return {role: put_together(how, parts) for role, how in section.outputs.items()}, checksum

    def _row(self, name: str, section: Section, index: Tensor, view: Tensor) -> Tensor:
        """Where in a view each sample stands."""
        if name not in self._rows:
            known = self._tensors(section.index)["index"]
            self._rows[name] = torch.full((int(known.max()) + 1,), -1).index_copy_(
                0, known, torch.arange(len(known))
            )
        place = self._rows[name]
        found = torch.where(index < len(place), place[index.clamp_max(len(place) - 1)], -1)
        if len(lost := index[found < 0]):
            raise ValueError(
                f"sample {int(lost[0])} is not in the store {self.place}, which has {section.count} samples; record it anew"
            )
        if len(later := view[view >= section.views]):
            raise ValueError(
                f"view {int(later[0])} is not in the store {self.place}, which has {section.views}; "
                "set data.augment.views to the number of views to record, and record them"
            )
        return found

    def _tensors(self, file: str) -> Tensors:
        if file not in self._open:
            self._open[file] = files.mapped(
                files.fetched(f"{self.place}/{file}", self.manifest.files[file])
            )
        return self._open[file]


def checksums(values: Tensor) -> Tensor:
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
