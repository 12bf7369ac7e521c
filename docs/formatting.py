"""Markdown for generated pages: tables, cells and values."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

NOT_PERCENT = ("perplexity", "bits_per_byte", "frechet_distance", "loss", "mae", "rmse")
"""Metrics that are shown as they are; others are shares and become percent."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, with an empty line after it."""
    lines = [_row(header), _row(["---"] * len(header))]
    lines += [_row(row) for row in rows]
    return [*lines, ""]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def replace_markers(text: str, contents: Mapping[str, Callable[[], str]]) -> str:
    """Text with each marker replaced by its content, which is computed only if it is needed."""
    for marker, content in contents.items():
        if marker in text:
            text = text.replace(marker, content())
    return text


def plain(text: str) -> str:
    """Docstring text as Markdown: double backticks become single ones."""
    return text.replace("``", "`")


def cell(text: str) -> str:
    """Text that can stand in a table cell: one line, pipes escaped."""
    return plain(" ".join(text.split())).replace("|", "\\|")


def gain_cell(gain: Mapping[str, Any] | None, scale: float = 100) -> str:
    """Mean and interval of a gain, bold if the interval excludes zero; empty for None."""
    if gain is None:
        return ""
    mean, low, high = (scale * value for value in (gain["mean"], *gain["interval"]))
    text = f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"
    return f"**{text}**" if low > 0 or high < 0 else text


def value(item: Any) -> str:
    """A default or option value as YAML shows it."""
    return json.dumps(item).strip('"')
