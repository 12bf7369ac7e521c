"""Files and folders in recipes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from instil.cards import suggestion

PACKAGE = "package:"


def located(path: str | Path, base: Path) -> Path:
    """Return the existing file or folder of a path in a recipe.

    Args:
        path: a path relative to ``base`` or to the working directory, in this order, or
            ``package:NAME/FILE`` for a file of an installed package.
        base: folder of the recipe.

    Returns:
        The first of these paths that exists.

    Raises:
        ValueError: if none exists, with the closest names in the folder.
    """
    candidates = [Path(base) / Path(path).expanduser(), Path(path).expanduser()]
    if str(path).startswith(PACKAGE):
        candidates = [_in_package(str(path).removeprefix(PACKAGE))]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    name = candidates[0].name
    folder = candidates[0].parent
    near = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    raise ValueError(f"no '{name}' in {folder.resolve()}.{suggestion(name, near)}")


def _in_package(path: str) -> Path:
    """Path of a file of a package, which is not imported."""
    name, _, file = path.partition("/")
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"{PACKAGE}{path}: the package '{name}' is not installed. Install it to use '{file}'"
        )
    return Path(spec.submodule_search_locations[0]) / file
