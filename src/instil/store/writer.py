"""Records answers shard by shard; what is there already is kept, so that a recording that was killed goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from instil.core import Batch, Outputs, batch_size, first_tensor
from instil.store import files
from instil.store.manifest import NAME, Manifest, StoreSection, TeacherFacts, read_manifest
from instil.store.outputs import Tensors, flatten_outputs
from instil.store.reader import row_checksums

SHARD_BYTES = 64 * 2**20
"""Bytes of a shard, about, before compression."""

Batches = Callable[[int, int, int], Iterable[Batch]]
"""The batches of a view, from one sample to another."""


class StoreWriter:
    """A store under way in a local ``folder``; ``binding`` says what its answers depend on.

    Raises FileExistsError where the folder holds something else, ValueError where it holds answers of another teacher or other data.
    """

    def __init__(self, folder: Path, binding: Mapping[str, Any]):
        self.folder = folder
        if (folder / NAME).exists():
            self.manifest = read_manifest(str(folder))
            if changed := self.manifest.differences(binding):
                raise ValueError(
                    f"{folder} holds other answers: {'; '.join(changed)}. Take another folder, or delete this one"
                )
            return
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            what = "is not empty and no store" if folder.is_dir() else "is a file"
            raise FileExistsError(f"{folder} {what}; take another folder")
        self.manifest = Manifest(binding=dict(binding))

    def record(
        self,
        name: str,
        index: Tensor,
        views: int,
        batches: Batches,
        answer: Callable[[Batch], Outputs],
    ) -> Iterator[int]:
        """Record what ``answer`` gives for the samples of ``index`` in every view; yields how many answers are done.

        Shards that are there are not asked for again. Raises ValueError where two batches give outputs of unlike kinds.
        """
        section = self._begun(name, index, views, batches, answer)
        for view in range(views):
            for start in range(0, len(index), section.rows):
                file = section.shard(name, view, start)
                if not self._has(file):
                    self._shard(
                        file,
                        section,
                        batches(view, start, min(start + section.rows, len(index))),
                        answer,
                    )
                yield view * len(index) + min(start + section.rows, len(index))

    def finish(self, teacher: Mapping[str, Any]) -> None:
        """Say that all is there, and what the teacher scored and cost."""
        self.manifest.teacher = TeacherFacts.model_validate(dict(teacher))
        self.manifest.complete = True
        self._save()

    def _begun(
        self,
        name: str,
        index: Tensor,
        views: int,
        batches: Batches,
        answer: Callable[[Batch], Outputs],
    ) -> StoreSection:
        section = self.manifest.sections.get(name)
        if section is not None and self._has(section.index) and self._has(section.constants):
            return section
        batch = next(iter(batches(0, 0, len(index))))
        rows, constants, outputs = _apart(answer(batch))
        each = sum(tensor[0].numel() * tensor.element_size() for tensor in rows.values())
        self._save()  # the folder is a store from here on; before the first answer it is nothing
        if section is None:
            section = StoreSection(
                index=f"{name}-index.safetensors.zst",
                count=len(index),
                views=views,
                rows=max(1, SHARD_BYTES // max(each, 1)),
                outputs=outputs,
            )
        self._write(section.index, {"index": index})
        if constants:
            section.constants = f"{name}-constants.safetensors.zst"
            self._write(section.constants, constants)
        self.manifest.sections[name] = section
        self._save()
        return section

    def _shard(
        self,
        file: str,
        section: StoreSection,
        batches: Iterable[Batch],
        answer: Callable[[Batch], Outputs],
    ) -> None:
        parts: dict[str, list[Tensor]] = {}
        for batch in batches:
            rows, _, outputs = _apart(answer(batch))
            if outputs != section.outputs:
                raise ValueError(
                    f"the teacher's outputs changed their kind during recording: {outputs}, before {section.outputs}"
                )
            for key, tensor in (rows | {"checksum": row_checksums(first_tensor(batch))}).items():
                parts.setdefault(key, []).append(tensor[: batch_size(batch)].cpu())
        try:
            self._write(file, {key: torch.cat(values) for key, values in parts.items()})
        except RuntimeError as error:
            raise ValueError(
                f"samples of unlike shapes cannot be recorded; pad them to one length: {error}"
            ) from error
        self._save()

    def _write(self, file: str, tensors: Tensors) -> None:
        self.manifest.files[file] = files.write_tensors(self.folder / file, tensors)

    def _has(self, file: str | None) -> bool:
        """Whether a file is there and undamaged; no file is always there."""
        if file is None:
            return True
        expected = self.manifest.files.get(file)
        return expected is not None and files.is_intact(self.folder / file, expected)

    def _save(self) -> None:
        self.manifest.write(str(self.folder))


def _apart(outputs: Outputs) -> tuple[Tensors, Tensors, dict[str, Any]]:
    rows: Tensors = {}
    constants: Tensors = {}
    how = {role: flatten_outputs(value, role, rows, constants) for role, value in outputs.items()}
    return rows, constants, how
