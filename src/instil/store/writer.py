"""Recording of outputs shard by shard, which can be stopped and continued."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from instil.core import Batch, Outputs, batch_size, first_tensor
from instil.store import files
from instil.store.counted import counted_names, pack
from instil.store.manifest import NAME, Manifest, StoreSection, TeacherFacts, read_manifest
from instil.store.outputs import Tensors, flatten_outputs
from instil.store.reader import row_checksums

SHARD_BYTES = 64 * 2**20
"""Approximate size of a shard before compression."""

Batches = Callable[[int, int, int], Iterable[Batch]]
"""``(view, start, end)`` -> batches of the samples ``start`` to ``end`` in a view."""
Predict = Callable[[Batch], Outputs]
"""Batch -> teacher outputs to record."""
CountedTokens = Callable[[Batch], Tensor | None]
"""Batch -> mask (N, T) of the tokens whose outputs are recorded, or None for all."""


class StoreWriter:
    """Recording of a store in a local folder.

    Args:
        folder: folder of the store.
        binding: values that the outputs depend on, by name.

    Raises:
        FileExistsError: if the folder has other content.
        ValueError: if the folder has outputs of another teacher or other data.
    """

    def __init__(self, folder: Path, binding: Mapping[str, Any]):
        self.folder = folder
        if (folder / NAME).exists():
            self.manifest = read_manifest(str(folder))
            if differences := self.manifest.differences(binding):
                raise ValueError(
                    f"{folder} has outputs of another recording: {'; '.join(differences)}. Set "
                    "another folder, or delete this one"
                )
            return
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            problem = "is not empty and not a store" if folder.is_dir() else "is a file"
            raise FileExistsError(f"{folder} {problem}. Set another folder")
        self.manifest = Manifest(binding=dict(binding))

    def record(
        self,
        name: str,
        index: Tensor,
        views: int,
        batches: Batches,
        predict: Predict,
        digest: str | None = None,
        roles: Collection[str] = (),
        counted: CountedTokens = lambda batch: None,
    ) -> Iterator[int]:
        """Record the outputs for all samples in every view.

        Shards that exist are not computed again, unless the digest of the samples has changed or
        the section lacks a role.

        Args:
            name: name of the section.
            index: sample indices (N,).
            views: number of views of each sample.
            batches: batches of a range of samples in a view.
            predict: batch -> outputs.
            digest: digest of the samples with their labels; None if the binding has it.
            roles: roles of the outputs; empty: those of ``predict``, which are not compared with
                an earlier recording.
            counted: mask of the tokens whose logits, or signals in their place, are recorded.

        Returns:
            Iterator over the number of rows that are done.

        Raises:
            ValueError: if two batches have outputs of different structure, or samples have
                different shapes.
        """
        self._drop_other(name, digest, frozenset(roles))
        section = self._begin(name, index, views, batches, predict, counted)
        if section.digest != digest:
            section.digest = digest
            self._save()
        for view in range(views):
            for start in range(0, len(index), section.rows):
                end = min(start + section.rows, len(index))
                file = section.shard(name, view, start)
                if not self._has(file):
                    self._record_shard(file, section, batches(view, start, end), predict, counted)
                yield view * len(index) + end

    def finish(self, teacher: Mapping[str, Any]) -> None:
        """Mark the store as complete.

        Args:
            teacher: fields of ``TeacherFacts``.
        """
        self.manifest.teacher = TeacherFacts.model_validate(dict(teacher))
        self.manifest.complete = True
        self._save()

    def _drop_other(self, name: str, digest: str | None, roles: frozenset[str]) -> None:
        """Remove a section of other samples or roles, so that it is recorded again."""
        section = self.manifest.sections.get(name)
        if section is None:
            return
        recorded = set(section.outputs)
        # A complete recording may have more roles than this one; a stopped one needs the same.
        has_roles = not roles or (
            recorded >= roles if self.manifest.complete else recorded == roles
        )
        if section.digest == digest and has_roles:
            return
        del self.manifest.sections[name]
        for file in [file for file in self.manifest.files if file.startswith(f"{name}-")]:
            del self.manifest.files[file]
        # Until the end: the sections and the scores belong to different samples or roles.
        self.manifest.complete = False
        self._save()

    def _begin(
        self,
        name: str,
        index: Tensor,
        views: int,
        batches: Batches,
        predict: Predict,
        counted: CountedTokens,
    ) -> StoreSection:
        """Return the section of an earlier recording, or describe a new one by its first batch."""
        section = self.manifest.sections.get(name)
        if section is not None and self._has(section.index) and self._has(section.constants):
            return section
        batch = next(iter(batches(0, 0, len(index))))
        rows, constants, outputs = _flatten_roles(predict(batch))
        mask = counted(batch)
        names = [] if mask is None else counted_names(_first(rows, batch), outputs, mask)
        row_bytes = sum(tensor[0].numel() * tensor.element_size() for tensor in rows.values())
        # Only now: a teacher that fails at its first batch must not leave a folder behind.
        self._save()
        if section is None:
            section = StoreSection(
                index=f"{name}-index.safetensors.zst",
                count=len(index),
                views=views,
                rows=max(1, SHARD_BYTES // max(row_bytes, 1)),
                outputs=outputs,
                counted=names,
            )
        self._write(section.index, {"index": index})
        if constants:
            section.constants = f"{name}-constants.safetensors.zst"
            self._write(section.constants, constants)
        self.manifest.sections[name] = section
        self._save()
        return section

    def _record_shard(
        self,
        file: str,
        section: StoreSection,
        batches: Iterable[Batch],
        predict: Predict,
        counted: CountedTokens,
    ) -> None:
        parts: dict[str, list[Tensor]] = {}
        for batch in batches:
            rows, _, outputs = _flatten_roles(predict(batch))
            if outputs != section.outputs:
                raise ValueError(
                    "the structure of the teacher's outputs changed during recording. Expected "
                    f"{section.outputs}, got {outputs}"
                )
            rows = _first(rows, batch) | {"checksum": row_checksums(first_tensor(batch))}
            mask = counted(batch) if section.counted else None
            if mask is not None:
                rows = pack(rows, section.counted, mask)
            for key, tensor in rows.items():
                parts.setdefault(key, []).append(tensor)
        try:
            self._write(file, {key: torch.cat(tensors) for key, tensors in parts.items()})
        except RuntimeError as error:
            raise ValueError(
                f"samples of different shapes cannot be recorded; pad them to one length: {error}"
            ) from error
        # After the file: a manifest never lists a file that is not there.
        self._save()

    def _write(self, file: str, tensors: Tensors) -> None:
        self.manifest.files[file] = files.write_tensors(self.folder / file, tensors)

    def _has(self, file: str | None) -> bool:
        """Whether a file exists and is not damaged; True for None."""
        if file is None:
            return True
        expected = self.manifest.files.get(file)
        return expected is not None and files.is_intact(self.folder / file, expected)

    def _save(self) -> None:
        self.manifest.write(str(self.folder))


def _first(rows: Tensors, batch: Batch) -> Tensors:
    """Return the rows of the samples of a batch, without repeated ones."""
    return {name: tensor[: batch_size(batch)].cpu() for name, tensor in rows.items()}


def _flatten_roles(outputs: Outputs) -> tuple[Tensors, Tensors, dict[str, Any]]:
    """Return the tensors of rows, shared tensors, and the description of each role."""
    rows: Tensors = {}
    constants: Tensors = {}
    descriptions = {
        role: flatten_outputs(value, role, rows, constants) for role, value in outputs.items()
    }
    return rows, constants, descriptions
