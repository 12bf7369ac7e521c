"""Files and folders in recipes."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instil.cards import suggestion
from instil.cards.closest import did_you_mean
from instil.cards.nested_texts import nested_texts

PACKAGE = "package:"


class MissingPath(ValueError):
    """Error about a file or folder that does not exist.

    Args:
        message: the message.
        path: the path as the recipe has it.
    """

    def __init__(self, message: str, path: str):
        super().__init__(message)
        self.path = path

    def key_in(self, section: Mapping[str, Any]) -> str:
        """Return the first key, with a leading dot, that has the path; empty without one.

        Args:
            section: values of a section of a recipe.
        """
        return next((key for key, text in nested_texts(section) if text == self.path), "")


def located(path: str | Path, base: Path) -> Path:
    """Return the existing file or folder of a path in a recipe.

    Args:
        path: a path relative to ``base`` or to the working directory, in this order, or
            ``package:NAME/FILE`` for a file of an installed package.
        base: folder of the recipe.

    Returns:
        The first of these paths that exists.

    Raises:
        MissingPath: if none exists, with the closest names in the folder.
        ValueError: for a package that is not installed.
    """
    candidates = [Path(base) / Path(path).expanduser(), Path(path).expanduser()]
    if str(path).startswith(PACKAGE):
        candidates = [_in_package(str(path).removeprefix(PACKAGE))]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    first = candidates[0]
    folder = first.parent
    if not folder.is_dir():
        message = f"no '{first.name}' in {folder.resolve()}, and no such folder"
        raise MissingPath(message, str(path))
    raise MissingPath(f"no '{first.name}' in {folder.resolve()}.{_near(first)}", str(path))


def _near(path: Path) -> str:
    """Return the end of an error with the closest names in the folder of a missing path."""
    names = sorted(entry.name for entry in path.parent.iterdir())
    visible = [name for name in names if not name.startswith(".")]
    # A file of another type is rarely the one that is meant.
    same_type = [name for name in visible if Path(name).suffix == path.suffix]
    return suggestion(path.name, same_type) or did_you_mean(path.name, visible)


def _in_package(path: str) -> Path:
    """Path of a file of a package, which is not imported."""
    name, _, file = path.partition("/")
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"{PACKAGE}{path}: the package '{name}' is not installed. Install it to use '{file}'"
        )
    return Path(spec.submodule_search_locations[0]) / file
