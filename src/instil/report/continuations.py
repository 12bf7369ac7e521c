"""What the networks write after the same prompts, side by side."""

from __future__ import annotations

from html import escape
from typing import Any

from instil.report import text
from instil.report.record import Record


def continuations(record: Record) -> str:
    """A list of terms for each prompt: the prompt, what was there, and what teacher and students say; empty where nothing was written."""
    arms = [
        arm for arm in record.arms if isinstance(record.at("details", arm, "continuations"), list)
    ]
    if not arms:
        return ""
    told = {arm: record.at("details", arm, "continuations") for arm in arms}
    first: list[dict[str, Any]] = told[arms[0]]
    shown = "".join(
        _one(row, {arm: rows[number] for arm, rows in told.items() if number < len(rows)})
        for number, row in enumerate(first)
    )
    return f'<div class="continuations"><h3>What they write after the same prompt</h3>{shown}{_speed(record, arms)}</div>'


def _one(row: dict[str, Any], said: dict[str, dict[str, Any]]) -> str:
    parts = [("Prompt", row.get("prompt")), ("What was there", row.get("text"))]
    parts += [
        (text.display_name(arm).capitalize(), one.get("generated")) for arm, one in said.items()
    ]
    terms = "".join(
        f"<dt>{escape(term)}</dt><dd><pre tabindex=0>{escape(str(words or ''))}</pre></dd>"
        for term, words in parts
    )
    return f"<dl>{terms}</dl>"


def _speed(record: Record, arms: list[str]) -> str:
    """How fast each writes, in how much memory, and how much further it is from its teacher there than on the given text."""
    found = []
    for arm in arms:
        speed, memory = (
            record.number("details", arm, key) for key in ("written_per_second", "writing_bytes")
        )
        if speed is not None and memory is not None:
            words = f"{text.count(round(speed))} tokens per second, {text.size(memory)} of memory beyond the weights"
            gap = record.number("details", arm, "exposure_bias_gap")
            words += (
                ""
                if gap is None
                else f", {text.points(gap, fraction=False)} nats a token from the teacher on own text over given text"
            )
            found.append(f"{text.display_name(arm).capitalize()}: {words}")
    return f"<p>{escape('; '.join(found))}.</p>" if found else ""
