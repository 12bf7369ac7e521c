"""Tokens of many texts in memory-mapped files, written once."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instil.data.chat_encoding import LEARNED, Encoded
from instil.data.chat_tally import Tally
from instil.data.image_files import image_state, is_unchanged
from instil.files.atomic import atomic

MANIFEST = "manifest.json"
TOKENS = "tokens.bin"
INFO = "info.bin"
TEXTS = "texts.npy"
COLUMNS = ("stop", "first_learned", "last_learned", "domain", "teacher_id")
NO_TEACHER = -1


class TokenArrays:
    """Tokens of texts, one text after another, and facts about each text.

    The tokens stay on the disk until they are read. Another process opens the files again.

    Args:
        folder: folder that ``write_arrays`` wrote.

    Attributes:
        domains: names of the domains, in alphabetical order.
        teachers: names of the teachers, in alphabetical order; empty if rows have indices.
        tally: number of rows that were left out, by reason.
        images: results of ``image_state`` by the index of a text that has images.

    Raises:
        ValueError: if the files are damaged, or an image has changed.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        self.domains: list[str] = facts["domains"]
        self.teachers: list[str] = facts["teachers"]
        self.tally = Tally(**facts["tally"])
        self.num_tokens: int = facts["num_tokens"]
        sizes = {TOKENS: 4 * self.num_tokens, INFO: 2 * self.num_tokens}
        for name, size in sizes.items():
            if (folder / name).stat().st_size != size:
                raise ValueError(f"{folder / name} has another size than {size} bytes")
        states: dict[str, list[list[Any]]] = facts.get("images", {})
        for state in chain.from_iterable(states.values()):
            if not is_unchanged(state):
                raise ValueError(f"{state[0]} has changed")
        self.images = {int(text): of_text for text, of_text in states.items()}
        table = np.load(folder / TEXTS)
        self.texts: dict[str, NDArray[np.int64]] = dict(zip(COLUMNS, table, strict=True))
        self._open()

    def _open(self) -> None:
        # A file without content cannot be mapped.
        shape = (self.num_tokens,)
        self.tokens: NDArray[np.int32] = np.zeros(0, np.int32)
        self.info: NDArray[np.uint16] = np.zeros(0, np.uint16)
        if self.num_tokens:
            self.tokens = np.memmap(self.folder / TOKENS, np.int32, "r", shape=shape)
            self.info = np.memmap(self.folder / INFO, np.uint16, "r", shape=shape)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in ("tokens", "info")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def __len__(self) -> int:
        return len(self.texts["stop"])

    def images_of(self, text: int) -> list[str]:
        """Return files or data URLs of the images of a text."""
        return [state[0] for state in self.images.get(text, [])]

    def image_digests(self) -> list[tuple[int, str]]:
        """Return the index of the text and the SHA-256 of every image."""
        digests = []
        for text, states in self.images.items():
            digests += [(text, state[-1]) for state in states]
        return digests

    @property
    def start(self) -> NDArray[np.int64]:
        """Position of the first token of each text (N,)."""
        stop = self.texts["stop"]
        return np.concatenate([np.zeros(min(1, len(stop)), np.int64), stop[:-1]])


class _Names:
    """Codes of names in the order in which they occur."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}

    def code(self, name: str) -> int:
        return self.codes.setdefault(name, len(self.codes))

    def sorted_codes(self, column: NDArray[np.int64]) -> NDArray[np.int64]:
        """Replace codes by those of the alphabetical order; negative codes stay."""
        ranks = {name: rank for rank, name in enumerate(sorted(self.codes))}
        table = np.array([*(ranks[name] for name in self.codes), NO_TEACHER])
        return np.asarray(table[column])


def write_arrays(folder: Path, parts: Iterable[tuple[list[Encoded], Tally]]) -> None:
    """Write the tokens of texts to a folder, completely or not at all.

    Args:
        folder: folder, which does not exist yet.
        parts: texts, and the number of rows that were left out.

    Raises:
        ValueError: for a row that cannot be encoded.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        _write(temporary, parts)
        temporary.chmod(0o755)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _Columns:
    """Facts about texts, in the order in which they are written."""

    def __init__(self) -> None:
        self.domains = _Names()
        self.teachers = _Names()
        self.blocks: list[NDArray[np.int64]] = []
        self.num_tokens = 0
        self.has_index = False

    def add(self, texts: Sequence[Encoded]) -> None:
        """Add the facts of texts.

        Raises:
            ValueError: if some rows have a teacher's index and others its name.
        """
        block = np.empty((len(texts), len(COLUMNS)), np.int64)
        for row, text in zip(block, texts, strict=True):
            learned = (text.info & LEARNED).nonzero()[0]
            self.num_tokens += len(text.tokens)
            domain = self.domains.code(text.domain)
            row[:] = (self.num_tokens, learned[0], learned[-1], domain, self._teacher(text))
        if self.has_index and self.teachers.codes:
            raise ValueError(
                "teacher_id: some rows have an index and others a name. Expected one kind"
            )
        self.blocks.append(block)

    def _teacher(self, text: Encoded) -> int:
        if isinstance(text.teacher_id, str):
            return self.teachers.code(text.teacher_id)
        if text.teacher_id is None:
            return NO_TEACHER
        self.has_index = True
        return text.teacher_id

    def table(self) -> NDArray[np.int64]:
        """Return one row for each of the ``COLUMNS``, with codes in alphabetical order."""
        empty = np.empty((0, len(COLUMNS)), np.int64)
        columns: NDArray[np.int64] = np.concatenate([empty, *self.blocks]).T
        columns[3] = self.domains.sorted_codes(columns[3])
        if self.teachers.codes:
            columns[4] = self.teachers.sorted_codes(columns[4])
        return columns


def _write(folder: Path, parts: Iterable[tuple[list[Encoded], Tally]]) -> None:
    columns = _Columns()
    tally = Tally()
    # Texts without images need no memory.
    images: dict[int, list[list[Any]]] = {}
    num_texts = 0
    with (folder / TOKENS).open("wb") as tokens, (folder / INFO).open("wb") as info:
        for texts, tally_of_part in parts:
            tally.merge(tally_of_part)
            for text in texts:
                tokens.write(text.tokens.tobytes())
                info.write(text.info.tobytes())
                if text.images:
                    images[num_texts] = [image_state(source) for source in text.images]
                num_texts += 1
            columns.add(texts)
        for file in (tokens, info):
            file.flush()
            os.fsync(file.fileno())
    np.save(folder / TEXTS, columns.table())
    facts = {
        "domains": sorted(columns.domains.codes),
        "teachers": sorted(columns.teachers.codes),
        "tally": dataclasses.asdict(tally),
        "num_tokens": columns.num_tokens,
        "images": images,
    }
    with atomic(folder / MANIFEST) as path:
        path.write_text(json.dumps(facts), encoding="utf-8")
