"""Descriptions of the differences between two sets of values."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

NUM_SHOWN_CHANGES = 2
"""Number of changes of a text that a message shows."""
MAX_SHOWN_LENGTH = 80
HASH = re.compile("[0-9a-f]{16,}")
HASH_MEANINGS = {
    "weights": "the teacher's weights, or its training",
    "data": "the samples",
    "code": "the teacher's code",
}
"""Meaning of a hash in each part of a binding."""


def describe_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe the differences between two nested mappings.

    Args:
        before: older values.
        now: newer values.

    Returns:
        One sentence for each difference, with the path, the older and the newer value.
    """
    return [_difference(*difference) for difference in _differing(before, now)]


def _differing(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Find the paths of all differences, as deep inside the values as possible."""
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        before = dict(enumerate(before))
        now = dict(enumerate(now))
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            inner = f"{path}.{key}" if path else str(key)
            yield from _differing(before.get(key), now.get(key), inner)
    elif before != now:
        yield path, before, now


def _difference(path: str, before: Any, now: Any) -> str:
    if path == "outputs_version":
        return "another version of instil, which computes other outputs, made the recording"
    meaning = HASH_MEANINGS.get(path.partition(".")[0])
    if meaning and all(isinstance(value, str) and HASH.fullmatch(value) for value in (before, now)):
        return f"{path} ({meaning}) has changed"
    if isinstance(before, str) and isinstance(now, str) and "\n" in before + now:
        return f"{path} has changed: {changed_lines(before, now)}"
    return f"{path} was {_short(before)} and is {_short(now)}"


def changed_lines(before: str, now: str) -> str:
    """Describe the first lines that differ between two texts.

    Args:
        before: older text.
        now: newer text.

    Returns:
        Text such as ``line 3 was 'a = 1' and is 'a = 2'``, and the number of further changes.
    """
    old = before.splitlines()
    new = now.splitlines()
    blocks = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    changes = [block for block in blocks if block[0] != "equal"]
    sentences = []
    for _, start, stop, new_start, new_stop in changes[:NUM_SHOWN_CHANGES]:
        if stop > start and new_stop > new_start:
            change = f"was {_short(old[start])} and is {_short(new[new_start])}"
        elif stop > start:
            change = f"{_short(old[start])} is gone"
        else:
            change = f"{_short(new[new_start])} is new"
        sentences.append(f"line {start + 1 if stop > start else new_start + 1} {change}")
    more = len(changes) - len(sentences)
    return ", ".join(sentences) + (f", and {more} further changes" if more else "")


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    if len(text) <= MAX_SHOWN_LENGTH:
        return text
    return f"{text[: MAX_SHOWN_LENGTH - 3]}..."
