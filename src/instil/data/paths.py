"""Files and folders that a recipe names."""

from __future__ import annotations

from pathlib import Path

from instil.core import closest


def located(path: str | Path, base: Path) -> Path:
    """``path`` as seen from ``base``, else from where the command runs; ValueError with the closest names where there is nothing."""
    places = [Path(base) / Path(path).expanduser(), Path(path).expanduser()]
    for place in places:
        if place.exists():
            return place
    folder = places[0].parent
    near = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    raise ValueError(f"there is no '{places[0].name}' in {folder.resolve()}; {closest(places[0].name, near)}")
