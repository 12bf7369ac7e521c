"""Examples of mistakes of the exported student, and the accuracy on each class."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from typing import Any

from instil.report.names import display_name
from instil.report.quality import seed_note
from instil.report.quantities import amount, count
from instil.report.record import Record, finite
from instil.report.tables import Cell, table

MOST_ROWS = 30
"""Largest number of classes in the table; classes with the lowest accuracy are shown."""
ARMS = ("teacher", "alone", "distilled")
CAPTION = (
    "Test images with the most confident wrong predictions of the exported student. Under each "
    "image: the true class, the prediction of the student with its confidence, and the prediction "
    "of the teacher."
)


def mistake_examples(record: Record) -> str:
    """Grid of test images that the exported student gets wrong.

    Returns:
        HTML; empty for a run without such images.
    """
    figures = []
    for index, mistake in enumerate(record.get_list("details", record.exported_arm, "mistakes")):
        path = record.folder / "checkpoint" / f"mistake-{index}.png"
        if isinstance(mistake, dict) and path.is_file():
            figures.append(_example(record, mistake, path.read_bytes()))
    if not figures:
        return ""
    return (
        '<figure class="mistakes"><h3>Examples of mistakes</h3>'
        f"<ul>{''.join(figures)}</ul><figcaption>{CAPTION}</figcaption></figure>"
    )


def _example(record: Record, mistake: dict[str, Any], picture: bytes) -> str:
    true = _class_name(record, mistake.get("true"))
    student = _class_name(record, mistake.get("student"))
    confidence = amount(finite(mistake.get("confidence")), digits=0)
    lines = [f"<b>true: {escape(true)}</b>", f"student: {escape(student)} ({confidence})"]
    if mistake.get("teacher") is not None:
        lines.append(f"teacher: {escape(_class_name(record, mistake['teacher']))}")
    source = f"data:image/png;base64,{b64encode(picture).decode()}"
    image = f'<img src="{source}" alt="{escape(f"test image of class {true}")}">'
    return f"<li>{image}<span>{'<br>'.join(lines)}</span></li>"


def _class_name(record: Record, index: Any) -> str:
    is_class = isinstance(index, int) and 0 <= index < len(record.classes)
    return record.classes[index] if is_class else str(index)


def class_accuracy_table(record: Record) -> str:
    """Accuracy of teacher, student alone and distilled student on each class.

    Returns:
        HTML; empty for a run without a confusion matrix of the distilled student.
    """
    matrices = {arm: rows for arm in ARMS if (rows := _confusion(record, arm))}
    if "distilled" not in matrices:
        return ""
    counts = matrices["distilled"]
    num_classes = len(counts)
    shares = {
        arm: [_accuracy(row, index) for index, row in enumerate(rows)]
        for arm, rows in matrices.items()
        if len(rows) == num_classes
    }
    order = [index for index in range(num_classes) if shares["distilled"][index] is not None]
    caption = f"Accuracy of each class on the test split{seed_note(record)}"
    if len(order) > MOST_ROWS:
        order = sorted(order, key=lambda index: shares["distilled"][index] or 0.0)[:MOST_ROWS]
        caption += f"; the {MOST_ROWS} classes with the lowest accuracy of {num_classes}"
    cells: list[list[Cell]] = []
    for index in order:
        accuracies = [amount(values[index]) for values in shares.values()]
        cells.append([_class_name(record, index), count(sum(counts[index])), *accuracies])
    header = ["Class", "Samples", *(display_name(arm) for arm in shares)]
    details = table(caption, header, cells)
    return f"<details><summary>Accuracy of each class</summary>{details}</details>"


def _confusion(record: Record, arm: str) -> list[list[float]]:
    """Square confusion matrix of an arm; empty if there is none."""
    rows = record.get_list("details", arm, "confusion")
    is_square = all(
        isinstance(row, list) and len(row) == len(rows) and None not in map(finite, row)
        for row in rows
    )
    return rows if is_square else []


def _accuracy(row: list[float], index: int) -> float | None:
    return row[index] / total if (total := sum(row)) else None
