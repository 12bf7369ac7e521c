"""Keys of a recipe that have a new name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

RENAMED_SECTIONS = {"together": "ensemble"}
"""Old name of a section -> new name."""

RENAMED_KEYS = {
    "data": {"labels": "num_labeled", "images": "surrogate"},
    "scheme": {
        "apart": "distance",
        "own": "student_text_objectives",
        "spots": "stage_pairs",
        "branches": "num_branches",
        "further_weight": "branch_weight",
        "first_chance": "initial_prob",
        "rise": "prob_increment",
        "prompt": "min_prompt_tokens",
    },
    "student": {"trained": "is_trained"},
    "teacher": {
        "trained": "is_trained",
        "copies": "num_replicas",
        "plain": "precompute",
        "progress": "checkpoint_at",
    },
}
"""Section -> old key -> new key."""

RENAMED_OPTIONS = {
    name: {"studies": "calibration_samples"} for name in ("am_radio", "phi_s", "theia", "unic")
} | {"camkd": {"stage": "feature_weight"}}
"""Objective -> old option -> new option."""


def renamed_keys(recipe: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Return one message per old key in a recipe and in its stages.

    Args:
        recipe: plain data of a recipe, or of one of its stages.
        prefix: recipe path of ``recipe``, ending in a dot if it is not empty.

    Yields:
        ``data.labels: unknown key. Its new name is data.num_labeled.``
    """
    for old, new in RENAMED_SECTIONS.items():
        if old in recipe:
            yield _message("key", f"{prefix}{old}", f"{prefix}{new}")
    for section, keys in RENAMED_KEYS.items():
        for path, entry in _entries(recipe.get(section), f"{prefix}{section}"):
            for old, new in keys.items():
                if old in entry:
                    yield _message("key", f"{path}.{old}", f"{path}.{new}")
    yield from _renamed_options(recipe.get("objectives"), f"{prefix}objectives")
    stages = recipe.get("stages")
    for index, stage in enumerate(stages if isinstance(stages, list) else ()):
        if isinstance(stage, Mapping):
            yield from renamed_keys(stage, f"{prefix}stages.{index}.")


def _renamed_options(objectives: Any, path: str) -> Iterator[str]:
    if not isinstance(objectives, Mapping):
        return
    for name, options in objectives.items():
        if not isinstance(options, Mapping):
            continue
        for old, new in RENAMED_OPTIONS.get(str(options.get("type", name)), {}).items():
            if old in options:
                yield _message("option", f"{path}.{name}.{old}", f"{path}.{name}.{new}")


def _entries(section: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Return the mappings of a section, which may be a list, with their recipe paths."""
    if isinstance(section, Mapping):
        yield path, section
    elif isinstance(section, list):
        for index, entry in enumerate(section):
            if isinstance(entry, Mapping):
                yield f"{path}.{index}", entry


def _message(kind: str, old: str, new: str) -> str:
    return f"{old}: unknown {kind}. Its new name is {new}."
