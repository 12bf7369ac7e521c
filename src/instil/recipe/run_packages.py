"""Packages of a finished run that this installation lacks, for the errors of its recipe."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ENVIRONMENT = "environment.json"


def missing_packages(folder: Path) -> str:
    """Return a sentence about packages that a run had and this installation lacks.

    Args:
        folder: folder of a recipe, which is that of a run if it has an ``environment.json``.

    Returns:
        The sentence, which begins with the name of the file. Empty if nothing is missing, and for
        a folder without a readable file.
    """
    try:
        content = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
        versions = dict(content["versions"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    missing = [f"{name} {text}" for name, text in versions.items() if not _is_installed(str(name))]
    if not missing:
        return ""
    return (
        f"{ENVIRONMENT}: the run used {', '.join(missing)}, not installed here. A package may "
        "define what is missing. Install it"
    )


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except (PackageNotFoundError, ValueError):
        return False
    return True
