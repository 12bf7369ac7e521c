"""What the distilled student gets wrong: examples, and its accuracy on each class."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from typing import Any

from instil.report import tables, text
from instil.report.quality import seed_note
from instil.report.record import Record, finite

MOST_ROWS = 30
"""Classes that the table shows; of more, those with the lowest accuracy."""
ARMS = ("teacher", "alone", "distilled")


def mistake_examples(record: Record) -> str:
    """A grid of test images that the shipped student gets wrong; empty without pictures."""
    mistakes = record.at("details", "distilled", "mistakes")
    figures = []
    for index, mistake in enumerate(mistakes if isinstance(mistakes, list) else ()):
        path = record.folder / "checkpoint" / f"mistake-{index}.png"
        if isinstance(mistake, dict) and path.is_file():
            figures.append(_example(record, mistake, path.read_bytes()))
    if not figures:
        return ""
    caption = (
        "The test images about which the shipped student is most confident and wrong. Under each: "
        "the true class, the answer of the student with its confidence, and that of the teacher."
    )
    return (
        '<figure class="mistakes"><h3>Examples of mistakes</h3>'
        f"<ul>{''.join(figures)}</ul><figcaption>{caption}</figcaption></figure>"
    )


def _example(record: Record, mistake: dict[str, Any], picture: bytes) -> str:
    true, student, teacher = (
        _class(record, mistake.get(key)) for key in ("true", "student", "teacher")
    )
    confidence = text.amount(finite(mistake.get("confidence")), digits=0)
    lines = [f"<b>true: {escape(true)}</b>", f"student: {escape(student)} ({confidence})"]
    if mistake.get("teacher") is not None:
        lines.append(f"teacher: {escape(teacher)}")
    image = f'<img src="data:image/png;base64,{b64encode(picture).decode()}" alt="{escape(f"test image of class {true}")}">'
    return f"<li>{image}<span>{'<br>'.join(lines)}</span></li>"


def _class(record: Record, number: Any) -> str:
    is_known = isinstance(number, int) and 0 <= number < len(record.classes)
    return record.classes[number] if is_known else str(number)


def class_accuracy_table(record: Record) -> str:
    """Accuracy of each class for teacher, student alone and distilled student."""
    found = {arm: rows for arm in ARMS if (rows := _confusion(record, arm))}
    if "distilled" not in found:
        return ""
    num_classes = len(found["distilled"])
    found = {arm: rows for arm, rows in found.items() if len(rows) == num_classes}
    shares = {
        arm: [_accuracy(rows[i], i) for i in range(num_classes)] for arm, rows in found.items()
    }
    order = [index for index in range(num_classes) if shares["distilled"][index] is not None]
    caption = f"Accuracy of each class on the test split{seed_note(record)}"
    if len(order) > MOST_ROWS:
        order = sorted(order, key=lambda index: shares["distilled"][index] or 0.0)[:MOST_ROWS]
        caption += f"; the {MOST_ROWS} classes with the lowest accuracy of {num_classes}"
    lines: list[list[tables.Cell]] = [
        [
            _class(record, index),
            text.count(sum(found["distilled"][index])),
            *(text.amount(shares[arm][index]) for arm in found),
        ]
        for index in order
    ]
    header = ["Class", "Samples", *(text.display_name(arm) for arm in found)]
    table = tables.table(caption, header, lines)
    return f"<details><summary>Accuracy of each class</summary>{table}</details>"


def _confusion(record: Record, arm: str) -> list[list[float]]:
    """The square confusion matrix of an arm; empty where there is none."""
    rows = record.at("details", arm, "confusion")
    size = len(rows) if isinstance(rows, list) else 0
    is_square = all(
        isinstance(row, list) and len(row) == size and all(finite(one) is not None for one in row)
        for row in (rows if size else ())
    )
    return rows if size and is_square else []


def _accuracy(row: list[float], index: int) -> float | None:
    return row[index] / total if (total := sum(row)) else None
