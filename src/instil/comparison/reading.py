"""Readers of run folders and search folders for a comparison."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from instil.comparison.results import TrainedResult
from instil.comparison.run_results import run_results
from instil.comparison.search_results import search_results
from instil.report.run_files import read_run

RUN, SEARCH = "result.json", "search.json"


def read_results(folders: Sequence[Path], any_version: bool = False) -> list[TrainedResult]:
    """Read the results of runs and searches.

    Args:
        folders: run folders and search folders; a folder that is listed twice is read once.
        any_version: accept results of different versions of the package.

    Raises:
        ValueError: for a folder without a finished result, and for results of several versions.
    """
    results: list[TrainedResult] = []
    versions: dict[str, Path] = {}
    read: set[Path] = set()
    for folder in folders:
        if folder.resolve() in read:
            continue
        read.add(folder.resolve())
        if (folder / SEARCH).is_file():
            outcome = _read_json(folder / SEARCH)
            results += search_results(folder, outcome, _read_recipe(folder))
            version = outcome.get("version")
        else:
            _check_folder(folder)
            record = read_run(folder)
            results += run_results(record, _read_recipe(folder))
            version = record.environment.get("versions", {}).get("instil")
        # Searches of earlier versions have not recorded it.
        if version is not None:
            versions.setdefault(str(version), folder)
    if len(versions) > 1 and not any_version:
        listed = ", ".join(f"{version} ({folder})" for version, folder in versions.items())
        raise ValueError(
            f"RUN: results of different versions. Expected results of one version of instil, got "
            f"{listed}. Run the older ones again, or add --any-version to compare them anyway"
        )
    return results


def _check_folder(folder: Path) -> None:
    """Check that a folder has a result of a run.

    Raises:
        ValueError: if it has none.
    """
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise ValueError(
            f"RUN: {folder} {problem}. Expected the folder of a run or of a search. Pass the "
            "folder that instil run or instil search has printed"
        )
    if (folder / RUN).is_file():
        return
    if (folder / "study.json").is_file():
        raise ValueError(
            f"RUN: {folder} is a search without a result. Expected {SEARCH}. Finish it with: "
            f"instil search --resume {folder}"
        )
    if (folder / "recipe.yaml").is_file():
        raise ValueError(
            f"RUN: {folder} is a run without a result. Expected {RUN}. Finish it with: instil run "
            f"--resume {folder}"
        )
    raise ValueError(
        f"RUN: {folder} is not the folder of a run or a search. Expected {RUN} or {SEARCH}, got "
        "neither"
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"RUN: {path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"RUN: {path} has the wrong type. Expected an object, got a {type(content).__name__}"
        )
    return content


def _read_recipe(folder: Path) -> dict[str, Any]:
    """Read the resolved recipe as plain data, so that keys of other versions are accepted.

    Raises:
        ValueError: if it is missing or malformed.
    """
    path = folder / "recipe.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(
            f"RUN: {path} cannot be read. Expected the recipe that instil run writes there"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("data"), dict):
        raise ValueError(
            f"RUN: {path} is not a resolved recipe. Expected the sections task and data; restore "
            "the file that instil run has written"
        )
    return content
