"""Keys of a recipe that have a new name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

RENAMED = {"data": {"labels": "num_labeled"}}
"""Section -> old key -> new key."""


def renamed_keys(recipe: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """One message for each old key in a recipe and in its stages.

    Args:
        recipe: plain data of a recipe, or of one of its stages.
        prefix: recipe path of ``recipe``, ending in a dot where it is not empty.

    Yields:
        ``data.labels: unknown key. Its new name is data.num_labeled.``
    """
    for section, keys in RENAMED.items():
        entries = recipe.get(section)
        for old, new in keys.items():
            if isinstance(entries, Mapping) and old in entries:
                yield f"{prefix}{section}.{old}: unknown key. Its new name is {prefix}{section}.{new}."
    stages = recipe.get("stages")
    for index, stage in enumerate(stages if isinstance(stages, list) else ()):
        if isinstance(stage, Mapping):
            yield from renamed_keys(stage, f"{prefix}stages.{index}.")
