"""Files and folders that a recipe names."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from instil.core import closest

PACKAGE = "package:"


def located(path: str | Path, base: Path) -> Path:
    """``path`` as seen from ``base``, else from where the command runs; ``package:NAME/FILE`` is a file that an installed package brings.

    Raises ValueError, with the closest names, where there is nothing.
    """
    places = [Path(base) / Path(path).expanduser(), Path(path).expanduser()]
    if str(path).startswith(PACKAGE):
        places = [_in_package(str(path).removeprefix(PACKAGE))]
    for place in places:
        if place.exists():
            return place
    folder = places[0].parent
    near = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    raise ValueError(
        f"there is no '{places[0].name}' in {folder.resolve()}; {closest(places[0].name, near)}"
    )


def _in_package(path: str) -> Path:
    """The package is only looked for, never imported: files are all that is wanted of it."""
    name, _, file = path.partition("/")
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise ValueError(f"there is no installed package '{name}' to take '{file}' from")
    return Path(found.submodule_search_locations[0]) / file
