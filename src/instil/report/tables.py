"""HTML tables and lists of terms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from instil.report.names import display_name, display_title
from instil.report.quantities import MISSING, PLUS_MINUS, size
from instil.report.record import Record

Cell = str | tuple[str, str]
"""Plain text of a cell, or that text with a note in smaller type."""


def table(
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    dots: Sequence[str] = (),
    strong: int = -1,
) -> str:
    """Accessible table that scrolls horizontally on a narrow screen.

    Args:
        caption: caption, also the label of the scrolling region.
        header: titles of the columns.
        rows: cells; the first cell of a row is its header.
        dots: colour of a dot at the beginning of each row. Empty: no dots.
        strong: index of a row in bold. -1: none.

    Returns:
        HTML.
    """
    titles = "".join(f'<th scope="col">{escape(title)}</th>' for title in header)
    body = []
    for index, row in enumerate(rows):
        first, *others = (_cell(cell) for cell in row)
        row_class = " class=strong" if index == strong else ""
        header_class = " class=dotted" if dots else ""
        dot = f'<span class="dot" style="background:{dots[index]}"></span>' if dots else ""
        cells = "".join(f"<td>{cell}</td>" for cell in others)
        row_header = f'<th scope="row"{header_class}>{dot}{first}</th>'
        body.append(f"<tr{row_class}>{row_header}{cells}</tr>")
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">'
        f"<table><caption>{escape(caption)}</caption><thead><tr>{titles}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return escape(cell)
    text, note = cell
    if not note:
        return escape(text)
    inline = ' class="inline"' if note.startswith(PLUS_MINUS) else ""
    return f"{escape(text)}<small{inline}>{escape(note)}</small>"


def term_list(pairs: Sequence[tuple[str, str]]) -> str:
    """List of terms and their descriptions, both plain text; empty without pairs."""
    items = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in pairs)
    return f"<dl>{items}</dl>" if items else ""


def environment_terms(record: Record) -> list[tuple[str, str]]:
    """Versions, hardware and state of the code as terms and descriptions."""
    return [
        (display_title(str(key)), _flat(value))
        for key, value in record.environment.items()
        if key != "seeds"
    ]


def _flat(value: Any) -> str:
    """JSON value in one line."""
    if isinstance(value, dict):
        return ", ".join(_pair(str(key), part) for key, part in value.items()) or MISSING
    if isinstance(value, list):
        return ", ".join(_flat(part) for part in value) or MISSING
    if isinstance(value, str):
        return value
    return "none" if value is None else json.dumps(value)


def _pair(key: str, value: Any) -> str:
    """Key with its value: ``dirty: false`` gives ``not dirty``, and bytes have a unit."""
    if isinstance(value, bool):
        return f"{'' if value else 'not '}{display_name(key)}"
    if key.endswith("bytes") and isinstance(value, (int, float)):
        return f"{display_name(key.removesuffix('bytes')).strip() or 'size'} {size(value)}"
    return f"{display_name(key)} {_flat(value)}"
