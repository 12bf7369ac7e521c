"""Functions of the data sources by name, and proposals for an unknown name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from instil import catalogue
from instil.cards import suggestion
from instil.data.splits import Splits

SOURCES_OF_FILES = {".npz": "npz", ".csv": "table", ".tsv": "table", ".parquet": "table"}
"""Suffix of a file -> source that reads it, for messages."""


class UnknownSource(ValueError):
    """Name of a data source that does not exist."""


def source_names() -> list[str]:
    """Return the names of all data sources, with those of installed and imported modules."""
    return catalogue.names("data")


def source_function(name: str) -> Callable[..., Splits]:
    """Return the function of a data source.

    Raises:
        UnknownSource: for a name that no source has.
    """
    names = source_names()
    if name not in names:
        raise UnknownSource(
            f"unknown data source '{name}'. Expected one of `instil methods --kind data` or "
            f"my_module:function.{_source_of_path(name) or suggestion(name, names)}"
        )
    function: Callable[..., Splits] = catalogue.find("data", name)
    return function


def _source_of_path(name: str) -> str:
    """Return a proposal for a name that is the path of a folder, an array file or a table."""
    path = Path(name)
    if path.is_dir():
        return f" Did you mean folder:{name}?"
    source = SOURCES_OF_FILES.get(path.suffix.lower())
    return f" Did you mean {source}:{name}?" if source and path.is_file() else ""
