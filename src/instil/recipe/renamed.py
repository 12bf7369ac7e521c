"""Keys and values of a recipe that have a new name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

RENAMED_SECTIONS = {"together": "ensemble"}
"""Old name of a section -> new name."""

RENAMED_KEYS = {
    "data": {"labels": "num_labeled", "images": "surrogate"},
    "student": {"trained": "is_trained"},
    "teacher": {
        "trained": "is_trained",
        "copies": "num_replicas",
        "plain": "precompute",
        "progress": "checkpoint_at",
    },
}
"""Section -> old key -> new key."""

RENAMED_SOURCE_VALUES = {
    ("sorting", "context"): {"beside": "separate"},
    ("text", "context"): {"beside": "separate"},
}
"""Data source of the package and its option -> old value -> new value."""

GENERATION = {
    "end": "sampling.eos_token_id",
    "prompt": "sampling.min_prompt_tokens",
    "min_prompt_tokens": "sampling.min_prompt_tokens",
    "max_new_tokens": "sampling.max_new_tokens",
    "vocabulary": "sampling.vocabulary",
}
SAMPLING = GENERATION | {"temperature": "sampling.temperature", "top_p": "sampling.top_p"}
NUM_BRANCHES = {"branches": "num_branches"}
STAGE_PAIRS = {"spots": "stage_pairs"}
RENAMED_SCHEME_OPTIONS: dict[str, dict[str, str]] = {
    "deep_supervision": {"further_weight": "branch_weight"},
    "dfad": {"apart": "distance"},
    "distillm": SAMPLING | {"first_chance": "initial_prob", "rise": "prob_increment"},
    "distillm2": SAMPLING,
    "fcfd": STAGE_PAIRS,
    "ffl": NUM_BRANCHES,
    "minillm": GENERATION | {"own": "student_text_objectives"},
    "on_policy": SAMPLING,
    "one": NUM_BRANCHES,
    "privileged_context": SAMPLING,
    "sequence_level": SAMPLING,
    "sftn": STAGE_PAIRS,
    "speculative": SAMPLING,
    "spot_adaptive": STAGE_PAIRS,
}
"""Scheme of the package -> old option -> new option."""

RENAMED_OBJECTIVE_OPTIONS = {
    name: {"studies": "calibration_samples"} for name in ("am_radio", "phi_s", "theia", "unic")
} | {"camkd": {"stage": "feature_weight"}}
"""Objective of the package -> old option -> new option."""

RENAMED_OBJECTIVES = {"rrd": "relational_representation"}
"""Old name of an objective of the package -> new name."""


def renamed_keys(
    recipe: Mapping[str, Any], prefix: str = "", scheme: str = "offline", source: str = ""
) -> Iterator[str]:
    """Yield one message per old key or value in a recipe and in its stages.

    Args:
        recipe: plain data of a recipe, or of one of its stages.
        prefix: recipe path of ``recipe``, ending in a dot if it is not empty.
        scheme: name of the scheme if the section ``scheme`` does not name one.
        source: name of the data source if the section ``data`` does not name one.

    Yields:
        ``data.labels: unknown key. Its new name is data.num_labeled.``
    """
    for old, new in RENAMED_SECTIONS.items():
        if old in recipe:
            yield _message("key", f"{prefix}{old}", f"{prefix}{new}")
    for section, keys in RENAMED_KEYS.items():
        for path, entry in _entries(recipe.get(section), f"{prefix}{section}"):
            for old, new in keys.items():
                # ``labels: boxes`` is the option of a source, and ``labels: 100`` the old key.
                is_option = old == "labels" and isinstance(entry.get(old), str)
                if old in entry and not is_option:
                    yield _message("key", f"{path}.{old}", f"{path}.{new}")
    own_data = recipe.get("data")
    if isinstance(own_data, Mapping):
        source = str(own_data.get("name", source))
    yield from _renamed_source_values(recipe, prefix, source)
    yield from _renamed_scheme_options(recipe.get("scheme"), f"{prefix}scheme", scheme)
    for path, entry in _entries(recipe.get("teacher"), f"{prefix}teacher"):
        yield from _renamed_scheme_options(entry.get("scheme"), f"{path}.scheme", "offline")
    yield from _renamed_objective_options(recipe.get("objectives"), f"{prefix}objectives")
    # A stage inherits the scheme and the data source, which decide whose option an old key was.
    own_scheme = recipe.get("scheme")
    if isinstance(own_scheme, Mapping):
        scheme = str(own_scheme.get("type", scheme))
    stages = recipe.get("stages")
    for index, stage in enumerate(stages if isinstance(stages, list) else ()):
        if isinstance(stage, Mapping):
            yield from renamed_keys(stage, f"{prefix}stages.{index}.", scheme, source)


def _renamed_source_values(recipe: Mapping[str, Any], prefix: str, source: str) -> Iterator[str]:
    """Yield one message per old value in the data of the recipe and of its teachers."""
    sections = [(f"{prefix}data", recipe.get("data"))]
    for path, teacher in _entries(recipe.get("teacher"), f"{prefix}teacher"):
        sections.append((f"{path}.data", teacher.get("data")))
    for path, section in sections:
        if not isinstance(section, Mapping):
            continue
        name = section.get("name", source)
        for (owner, option), values in RENAMED_SOURCE_VALUES.items():
            value = section.get(option)
            if name == owner and isinstance(value, str) and value in values:
                yield (f"{path}.{option}: unknown value {value}. Its new name is {values[value]}.")


def _renamed_scheme_options(section: Any, path: str, default: str) -> Iterator[str]:
    if not isinstance(section, Mapping):
        return
    table = RENAMED_SCHEME_OPTIONS.get(str(section.get("type", default)), {})
    for old, new in table.items():
        if old in section:
            yield _message("option", f"{path}.{old}", f"{path}.{new}")


def _renamed_objective_options(objectives: Any, path: str) -> Iterator[str]:
    if not isinstance(objectives, Mapping):
        return
    for name, options in objectives.items():
        method = str(options.get("type", name) if isinstance(options, Mapping) else name)
        if method in RENAMED_OBJECTIVES:
            yield _message("objective", f"{path}.{name}", RENAMED_OBJECTIVES[method])
        if not isinstance(options, Mapping):
            continue
        for old, new in RENAMED_OBJECTIVE_OPTIONS.get(str(options.get("type", name)), {}).items():
            if old in options:
                yield _message("option", f"{path}.{name}.{old}", f"{path}.{name}.{new}")


def _entries(section: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the mappings of a section, which may be a list, with their recipe paths."""
    if isinstance(section, Mapping):
        yield path, section
    elif isinstance(section, list):
        for index, entry in enumerate(section):
            if isinstance(entry, Mapping):
                yield f"{path}.{index}", entry


def _message(kind: str, old: str, new: str) -> str:
    return f"{old}: unknown {kind}. Its new name is {new}."
