"""Documentation of the data sources, from their signatures and docstrings."""

from __future__ import annotations

import inspect
import re
from typing import Any

from instil.catalogue.signatures import described
from instil.experiment.sources import source_function, source_names


def describe_source(name: str) -> dict[str, Any]:
    """Describe one data source.

    Args:
        name: name of a source of the package.

    Returns:
        ``name``, ``kind`` (data), ``summary`` (first sentence), ``text`` (the rest of the
        description, without Returns and Raises) and ``options``: name, type, default and
        description of each.

    Raises:
        UnknownSource: for a name that no source has.
    """
    function = source_function(name)
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    sections = ("Args:", "Returns:", "Raises", "Example:")
    text = [_joined(part) for part in paragraphs[1:] if not part.startswith(sections)]
    return {
        "name": name,
        "kind": "data",
        "summary": paragraphs[0].replace("\n", " "),
        "text": "\n\n".join(text),
        "options": described(function),
    }


def _joined(paragraph: str) -> str:
    """Paragraph in one line; each item of a list keeps its own line."""
    return re.sub(r"\s*\n(?!- )\s*", " ", paragraph)


def describe_sources() -> list[dict[str, Any]]:
    """Describe all data sources of the package."""
    return [describe_source(name) for name in source_names()]
