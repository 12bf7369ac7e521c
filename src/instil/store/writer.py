"""Recording of outputs shard by shard, which can be stopped and continued."""

from __future__ import annotations

import functools
import itertools
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from instil.store import files
from instil.store.counted import counted_names
from instil.store.group import Group
from instil.store.manifest import NAME, Manifest, StoreSection, TeacherFacts, read_manifest
from instil.store.outputs import Tensors
from instil.store.shard_writer import (
    PARTS,
    Batches,
    CountedTokens,
    Predict,
    ShardWriter,
    first_rows,
    flatten_roles,
)
from instil.store.shares import Part, shards_of

SHARD_BYTES = 64 * 2**20
"""Approximate size of a shard before compression."""


class StoreWriter:
    """Recording of a store in a local folder.

    Args:
        folder: folder of the store. Several processes need the same folder.
        binding: values that the outputs depend on, by name.
        group: processes that record together. The store is that of one process.

    Raises:
        FileExistsError: if the folder has other content.
        ValueError: if the folder has outputs of another teacher or other data.
    """

    def __init__(self, folder: Path, binding: Mapping[str, Any], group: Group | None = None):
        self.folder = folder
        self.group = group or Group()
        self.manifest = self.group.first(lambda: self._open(binding))

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
        batch_size: int = 1,
    ) -> Iterator[int]:
        """Record the outputs for all samples in every view.

        Shards that exist are not computed again, unless the digest of the samples has changed or
        the section lacks a role.

        Args:
            name: name of the section.
            index: sample indices (N,).
            views: number of views of each sample.
            batches: batches of a range of samples in a view.
            predict: batch -> outputs; it must not communicate with other processes.
            digest: digest of the samples with their labels; None if the binding has it.
            roles: roles of the outputs; empty: those of ``predict``, which are not compared with
                an earlier recording.
            counted: mask of the tokens whose logits, or signals in their place, are recorded.
            batch_size: number of rows that several processes leave together, as ``batches`` does.

        Returns:
            Iterator over the number of rows that are done.

        Raises:
            ValueError: if two batches have outputs of different structure, or samples have
                different shapes.
        """

        def begin() -> Manifest:
            self._drop_other(name, digest, frozenset(roles))
            section = self._begin(name, index, views, batches, predict, counted)
            if section.digest != digest:
                section.digest = digest
                self._save()
            return self.manifest

        self.manifest = self.group.first(begin)
        section = self.manifest.sections[name]
        writer = ShardWriter(
            self.folder, section, batches, predict, counted, batch_size, self.group
        )
        missing = self._missing(list(shards_of(name, section)))
        while shards := list(itertools.islice(missing, self.group.size)):
            self.manifest.files |= writer.write(shards)
            # After the files: a manifest never lists a file that is not there.
            self.group.first(self._save)
            yield shards[-1].view * len(index) + shards[-1].end
        yield views * len(index)

    def finish(self, teacher: Mapping[str, Any]) -> None:
        """Mark the store as complete.

        Args:
            teacher: fields of ``TeacherFacts``; those of the first process are written.
        """
        self.manifest.teacher = TeacherFacts.model_validate(dict(teacher))
        self.manifest.complete = True
        self.group.first(self._save)
        self.group.first(self._remove_parts)

    def _open(self, binding: Mapping[str, Any]) -> Manifest:
        """Read the manifest of a stopped recording, or create one."""
        folder = self.folder
        if (folder / NAME).exists():
            manifest = read_manifest(str(folder))
            if differences := manifest.differences(binding):
                raise ValueError(
                    f"{folder} has outputs of another recording: {'; '.join(differences)}. Set "
                    "another folder, or delete this one"
                )
            self._remove_parts()
            return manifest
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            problem = "is not empty and not a store" if folder.is_dir() else "is a file"
            raise FileExistsError(f"{folder} {problem}. Set another folder")
        return Manifest(binding=dict(binding))

    def _remove_parts(self) -> None:
        """Delete the rows that processes of a killed recording handed over."""
        shutil.rmtree(self.folder / PARTS, ignore_errors=True)

    def _missing(self, shards: Sequence[Part]) -> Iterator[Part]:
        """Yield the shards that are missing or damaged; the processes divide the check."""
        size = self.group.size
        for start in range(0, len(shards), size):
            checked = shards[start : start + size]
            own = checked[self.group.rank : self.group.rank + 1]
            intact = self.group.each(functools.partial(self._has_all, own))
            for shard, is_intact in zip(checked, intact, strict=False):
                if not is_intact:
                    yield shard

    def _has_all(self, shards: Sequence[Part]) -> bool:
        return all(self._has(shard.file) for shard in shards)

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
        rows, constants, outputs = flatten_roles(predict(batch))
        mask = counted(batch)
        names = [] if mask is None else counted_names(first_rows(rows, batch), outputs, mask)
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
