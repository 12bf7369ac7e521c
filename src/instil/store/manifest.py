"""Manifest of a store: inputs of the recording, sections, and the checksum of every file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import fsspec  # type: ignore[import-untyped]
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from instil.files.atomic import atomic
from instil.files.checksums import json_with_checksum, parse_json_with_checksum
from instil.store.differences import describe_differences
from instil.store.outputs import check_description

FORMAT: Literal[2] = 2
NAME = "manifest.json"
REMEDY = "Delete the folder and record it again (instil record RECIPE)"
MAX_MANIFEST_BYTES = 2**28
MAX_FILE_BYTES = 2**36
"""Maximum size of a file after decompression."""
MAX_COUNT = 2**40
"""Maximum number of samples, views or rows."""

# File names have no separator and no leading dot, so that none leads out of the store.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=200)]
SectionName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=100)]
Count = Annotated[int, Field(ge=1, le=MAX_COUNT)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class StoredFile(_Strict):
    """SHA-256 and size in bytes of the content of a file before compression."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0, le=MAX_FILE_BYTES)]


class StoreSection(_Strict):
    """Outputs for one set of samples.

    Attributes:
        index: file with the indices of the samples, the same in every view.
        count: number of samples.
        views: number of views of each sample.
        rows: number of samples in a shard.
        outputs: role -> description for ``unflatten_outputs``.
        constants: file with the tensors that all rows share.
        digest: digest of the samples with their labels; None if the binding has it.
        counted: names of the tensors that have the counted tokens only; the tensor ``COUNTED`` of
            a shard has the mask of these tokens.
    """

    index: FileName
    count: Count
    views: Count
    rows: Count
    outputs: Annotated[dict[str, Any], AfterValidator(check_description)]
    constants: FileName | None = None
    digest: str | None = None
    counted: list[str] = []

    def shard(self, name: str, view: int, start: int) -> str:
        """Return the file name of a shard.

        Args:
            name: name of the section.
            view: index of the view.
            start: first row of the shard.
        """
        return f"{name}-{view:05d}-{start:010d}.safetensors.zst"


class TeacherFacts(_Strict):
    """Metrics and cost of the recorded teacher; empty until the recording is finished."""

    test: dict[str, float] = {}
    validation: dict[str, float] = {}
    details: dict[str, Any] = {}
    seconds: float = 0.0
    cost: dict[str, Any] | None = None


class Manifest(_Strict):
    """Content of a store.

    Attributes:
        binding: values that the recorded outputs depend on, by name.
        sections: sets of samples by name.
        files: checksum and size of each file.
        teacher: metrics and cost of the teacher.
        complete: whether the recording is finished.
        format: version of the format.
    """

    binding: dict[str, Any]
    sections: dict[SectionName, StoreSection] = {}
    files: dict[FileName, StoredFile] = {}
    teacher: TeacherFacts = TeacherFacts()
    complete: bool = False
    format: Literal[2] = FORMAT

    def write(self, folder: str) -> None:
        """Replace the manifest in a local folder.

        Args:
            folder: folder of the store.
        """
        with atomic(f"{folder}/{NAME}") as temporary:
            temporary.write_text(json_with_checksum(self.model_dump(mode="json")), encoding="utf-8")

    def differences(self, binding: Mapping[str, Any]) -> list[str]:
        """Describe how the recorded binding differs from another one.

        Args:
            binding: current values.

        Returns:
            One sentence for each difference.
        """
        return describe_differences(self.binding, binding)


def read_manifest(folder: str) -> Manifest:
    """Read the manifest in a folder or at a URL.

    Args:
        folder: path or URL of the store.

    Returns:
        The manifest.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, has another format, or has invalid entries.
    """
    path = f"{folder.rstrip('/')}/{NAME}"
    try:
        with fsspec.open(path, "rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"{folder} is not a store: it has no {NAME}. Create one: instil record RECIPE"
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
    """Raise ValueError for another format, before its checksum fails."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return  # reported with the checksum
    stored_format = content.get("format", FORMAT) if isinstance(content, dict) else FORMAT
    if stored_format != FORMAT:
        raise ValueError(
            f"{path}: unknown format of the store. Expected {FORMAT}, got "
            f"{str(stored_format)[:20]}. {REMEDY}."
        )


def _first_problem(error: ValidationError) -> str:
    """Return the first error of pydantic, and the number of further ones."""
    problems = error.errors(include_url=False, include_context=False)
    path = ".".join(str(part) for part in problems[0]["loc"]) or "the manifest"
    others = f" ({len(problems) - 1} more entries are wrong)" if len(problems) > 1 else ""
    return f"{path[:200]}: {problems[0]['msg']}{others}"
