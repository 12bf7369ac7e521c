"""Reader of the files of a run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from instil.files.checksums import JSON_KEY, DamagedFileError, read_json_with_checksum
from instil.report.record import Record

RESTORE = "Restore it from a copy, or resume the run (--resume)"

OLDER_KEYS = {"shipped_seed": "exported_seed"}
"""Keys in results of earlier versions -> their names now."""


def read_run(folder: str | Path) -> Record:
    """Read a run folder.

    Only ``result.json`` is required. Other files that are missing or malformed are named in
    ``Record.unread``.

    Raises:
        ValueError: if the folder has no readable result.
        DamagedFileError: if the result differs from its checksum.
    """
    folder = Path(folder)
    result = _read_result(folder)
    unread: list[str] = []
    metrics = _read_metrics(folder / "metrics.jsonl", unread)
    environment = _read_environment(folder / "environment.json", unread)
    recipe = _read_text(folder / "recipe.yaml", unread) or ""
    return Record(folder, result, metrics, environment, recipe, tuple(unread))


def _read_result(folder: Path) -> dict[str, Any]:
    path = folder / "result.json"
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder. Expected a run folder of `instil run`")
    if not path.is_file():
        files = ", ".join(sorted(file.name for file in folder.iterdir())[:8]) or "nothing"
        raise ValueError(
            f"{folder} has no result.json. Expected a run folder whose run has written a result, "
            f"got a folder with {files}"
        )
    try:
        result = json.loads(path.read_text("utf-8"))
        if isinstance(result, dict) and JSON_KEY in result:
            result = read_json_with_checksum(path, RESTORE)
    except DamagedFileError:
        raise
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(result, dict):
        raise ValueError(
            f"{path}: wrong type. Expected an object with teacher, alone, distilled, gain and "
            f"cost, got a {type(result).__name__}"
        )
    for older, key in OLDER_KEYS.items():
        if older in result:
            result.setdefault(key, result[older])
    return result


def _read_text(path: Path, unread: list[str]) -> str | None:
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError):
        unread.append(f"{path.name} is missing or cannot be read.")
        return None


def _read_environment(path: Path, unread: list[str]) -> dict[str, Any]:
    text = _read_text(path, unread)
    if text is None:
        return {}
    try:
        environment = json.loads(text)
    except ValueError:
        environment = None
    if not isinstance(environment, dict):
        unread.append(f"{path.name} is not a JSON object.")
        return {}
    return environment


def _read_metrics(path: Path, unread: list[str]) -> list[dict[str, Any]]:
    rows = []
    num_broken = 0
    for line in (_read_text(path, unread) or "").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        elif line.strip():
            num_broken += 1
    if num_broken:
        lines = "1 line" if num_broken == 1 else f"{num_broken} lines"
        unread.append(
            f"{lines} of {path.name} cannot be read. A run that was stopped may leave an "
            "incomplete line."
        )
    return rows
