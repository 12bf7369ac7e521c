"""The manifest of a store: what it was recorded from, what is in it, and the checksum of every file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import fsspec  # type: ignore[import-untyped]

from instil.atomic import atomic

FORMAT = 1
NAME = "manifest.json"
HASH = re.compile("[0-9a-f]{16,}")
HASHED = {
    "weights": "the teacher's weights, or how and on what it is trained",
    "data": "the samples",
    "code": "the teacher's code",
}
"""What a hash in each part of a binding is of."""


@dataclass
class Section:
    """The answers to one set of samples, in ``views`` views of each: the same ``index`` (a file) in every view, ``rows`` samples a shard.

    ``outputs`` says how the tensors in a shard become outputs again (``outputs.put_together``); ``constants`` is the file of what all rows share.
    """

    index: str
    count: int
    views: int
    rows: int
    outputs: dict[str, Any]
    constants: str | None = None

    def shard(self, name: str, view: int, start: int) -> str:
        """The file with the rows from ``start`` on of one view."""
        return f"{name}-{view:05d}-{start:010d}.safetensors.zst"


@dataclass
class Manifest:
    """``binding``: what the answers depend on, by name; ``files``: the SHA-256 of each file before compression; ``teacher``: its scores and cost."""

    binding: dict[str, Any]
    sections: dict[str, Section] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    teacher: dict[str, Any] = field(default_factory=dict)
    complete: bool = False
    format: int = FORMAT

    def write(self, folder: str) -> None:
        """Replace the manifest in a local folder."""
        with atomic(f"{folder}/{NAME}") as temporary:
            temporary.write_text(
                json.dumps(asdict(self), indent=1, allow_nan=False) + "\n", encoding="utf-8"
            )

    def differences(self, wanted: Mapping[str, Any]) -> list[str]:
        """What is not as ``wanted``: name, what it was when it was recorded, and what it is."""
        return [_difference(*one) for one in _unlike(self.binding, wanted)]


def read_manifest(folder: str) -> Manifest:
    """The manifest in a folder or at a URL. Raises FileNotFoundError where there is none, ValueError for one that cannot be read."""
    try:
        with fsspec.open(f"{folder.rstrip('/')}/{NAME}", "rt", encoding="utf-8") as file:
            found = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"{folder} is no store: it has no {NAME}; make one with: instil record RECIPE"
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"the manifest of the store {folder} cannot be read: {error}; delete the folder and record it anew"
        ) from error
    if found.get("format") != FORMAT:
        raise ValueError(
            f"the store {folder} has format {found.get('format')}, this version reads format {FORMAT}; record it anew"
        )
    sections = {name: Section(**section) for name, section in found.pop("sections").items()}
    return Manifest(**found, sections=sections)


def _unlike(before: Any, now: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two values differ, as deep inside them as can be said."""
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        before, now = dict(enumerate(before)), dict(enumerate(now))
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            yield from _unlike(
                before.get(key), now.get(key), f"{place}.{key}" if place else str(key)
            )
    elif before != now:
        yield place, before, now


def _difference(place: str, before: Any, now: Any) -> str:
    meaning = HASHED.get(place.partition(".")[0])
    if meaning and all(isinstance(value, str) and HASH.fullmatch(value) for value in (before, now)):
        return f"{place} ({meaning}) has changed"
    return f"{place} was {_short(before)} and is {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
