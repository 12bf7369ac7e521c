"""The manifest of a store: what it was recorded from, what is in it, and the checksum of every file."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import fsspec  # type: ignore[import-untyped]
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from instil.files.atomic import atomic
from instil.files.checksums import json_with_checksum, parse_json_with_checksum
from instil.store.outputs import check_description

FORMAT: Literal[2] = 2
NAME = "manifest.json"
REMEDY = "Delete the folder and record it again (instil record RECIPE)"
MAX_MANIFEST_BYTES = 2**28  # bytes
MAX_FILE_BYTES = 2**36  # bytes of a file after decompression
MAX_COUNT = 2**40  # samples, views, rows
NUM_SHOWN_CHANGES = 2
"""Changes of a text that a message shows."""
HASH = re.compile("[0-9a-f]{16,}")
HASHED = {
    "weights": "the teacher's weights, or how and on what it is trained",
    "data": "the samples",
    "code": "the teacher's code",
}
"""What a hash in each part of a binding is of."""

# Names of files have no separator and no leading dot, so that none leads out of the store.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=200)]
SectionName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=100)]
Count = Annotated[int, Field(ge=1, le=MAX_COUNT)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class StoredFile(_Strict):
    """What a file holds before compression: its SHA-256 and its size in bytes."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0, le=MAX_FILE_BYTES)]


class StoreSection(_Strict):
    """The answers to one set of samples, in ``views`` views of each: the same ``index`` (a file) in every view, ``rows`` samples a shard.

    ``outputs`` says how the tensors in a shard become outputs again (``outputs.put_together``); ``constants`` is the file of what all rows share.
    """

    index: FileName
    count: Count
    views: Count
    rows: Count
    outputs: Annotated[dict[str, Any], AfterValidator(check_description)]
    constants: FileName | None = None

    def shard(self, name: str, view: int, start: int) -> str:
        """The file with the rows from ``start`` on of one view."""
        return f"{name}-{view:05d}-{start:010d}.safetensors.zst"


class TeacherFacts(_Strict):
    """Scores and cost of the teacher that answered; empty until the recording is finished."""

    test: dict[str, float] = {}
    validation: dict[str, float] = {}
    details: dict[str, Any] = {}
    seconds: float = 0.0
    cost: dict[str, Any] | None = None


class Manifest(_Strict):
    """``binding``: what the answers depend on, by name; ``files``: the content of each file; ``teacher``: its scores and cost."""

    binding: dict[str, Any]
    sections: dict[SectionName, StoreSection] = {}
    files: dict[FileName, StoredFile] = {}
    teacher: TeacherFacts = TeacherFacts()
    complete: bool = False
    format: Literal[2] = FORMAT

    def write(self, folder: str) -> None:
        """Replace the manifest in a local folder."""
        with atomic(f"{folder}/{NAME}") as temporary:
            temporary.write_text(json_with_checksum(self.model_dump(mode="json")), encoding="utf-8")

    def differences(self, wanted: Mapping[str, Any]) -> list[str]:
        """What is not as ``wanted``: name, what it was when it was recorded, and what it is."""
        return [_difference(*one) for one in _unlike(self.binding, wanted)]


def read_manifest(folder: str) -> Manifest:
    """Read the manifest in a folder or at a URL.

    Args:
        folder: path or URL of the store.

    Returns:
        The manifest.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, of another format, or holds what no store holds.
    """
    path = f"{folder.rstrip('/')}/{NAME}"
    try:
        with fsspec.open(path, "rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"{folder} is no store: it has no {NAME}; make one with: instil record RECIPE"
        ) from None
    if len(data) > MAX_MANIFEST_BYTES:
        raise ValueError(f"{path}: the file is larger than any manifest. {REMEDY}.")
    _check_format(data, path)
    content = parse_json_with_checksum(data, path, REMEDY)
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{path}: {_first_problem(error)}. {REMEDY}.") from None
    except RecursionError:
        raise ValueError(f"{path}: the file is nested too deeply. {REMEDY}.") from None


def _check_format(data: bytes, path: str) -> None:
    """ValueError for a manifest of another version, which has another checksum, or none."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return  # told with the checksum
    stored_format = content.get("format", FORMAT) if isinstance(content, dict) else FORMAT
    if stored_format != FORMAT:
        raise ValueError(
            f"{path}: the store has format {str(stored_format)[:20]}, this version reads format {FORMAT}."
            f" {REMEDY}."
        )


def _first_problem(error: ValidationError) -> str:
    """The first entry that pydantic refused, and how many there are."""
    problems = error.errors(include_url=False, include_context=False)
    place = ".".join(str(part) for part in problems[0]["loc"]) or "the manifest"
    others = f" ({len(problems) - 1} more entries are wrong)" if len(problems) > 1 else ""
    return f"{place[:200]}: {problems[0]['msg']}{others}"


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
    if isinstance(before, str) and isinstance(now, str) and "\n" in before + now:
        return f"{place} has changed: {changed_lines(before, now)}"
    return f"{place} was {_short(before)} and is {_short(now)}"


def changed_lines(before: str, now: str) -> str:
    """Return the first lines that differ between two texts, with their numbers.

    Args:
        before: the older text.
        now: the newer text.

    Returns:
        Such as ``line 3 was 'a = 1' and is 'a = 2'``, with the number of further changes.
    """
    old, new = before.splitlines(), now.splitlines()
    blocks = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    changes = [block for block in blocks if block[0] != "equal"]
    sentences = []
    for _, start, stop, new_start, new_stop in changes[:NUM_SHOWN_CHANGES]:
        if stop > start and new_stop > new_start:
            change = f"was {_short(old[start])} and is {_short(new[new_start])}"
        elif stop > start:
            change = f"{_short(old[start])} is gone"
        else:
            change = f"{_short(new[new_start])} is new"
        sentences.append(f"line {start + 1 if stop > start else new_start + 1} {change}")
    more = len(changes) - len(sentences)
    return ", ".join(sentences) + (f", and {more} further changes" if more else "")


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
