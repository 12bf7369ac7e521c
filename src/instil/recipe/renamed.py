"""Keys of a recipe that have a new name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

RENAMED = {
    "data": {"labels": "num_labeled"},
    "scheme": {
        "own": "student_text_objectives",
        "spots": "stage_pairs",
        "branches": "num_branches",
        "further_weight": "branch_weight",
        "first_chance": "initial_prob",
        "rise": "prob_increment",
        "prompt": "min_prompt_tokens",
    },
}
"""Section -> old key -> new key."""

RENAMED_OPTIONS = {
    name: {"studies": "calibration_samples"} for name in ("am_radio", "phi_s", "theia", "unic")
}
"""Objective -> old option -> new option."""


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
    objectives = recipe.get("objectives")
    for name, options in objectives.items() if isinstance(objectives, Mapping) else ():
        method = options.get("type", name) if isinstance(options, Mapping) else name
        for old, new in RENAMED_OPTIONS.get(str(method), {}).items():
            if isinstance(options, Mapping) and old in options:
                path = f"{prefix}objectives.{name}"
                yield f"{path}.{old}: unknown option. Its new name is {path}.{new}."
    stages = recipe.get("stages")
    for index, stage in enumerate(stages if isinstance(stages, list) else ()):
        if isinstance(stage, Mapping):
            yield from renamed_keys(stage, f"{prefix}stages.{index}.")
