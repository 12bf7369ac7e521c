"""Table of the headline metric on the test data of each stage, after each stage."""

from __future__ import annotations

from html import escape
from typing import Any

from instil.report.names import display_title
from instil.report.quantities import amount, points, spread
from instil.report.record import Record, finite
from instil.report.tables import Cell, table


def stages_table(record: Record) -> str:
    """Table of the scores of each network on the test data of all stages, and of its forgetting.

    Returns:
        HTML; empty for a run whose stages have the same data.
    """
    tests = [test for test in record.get_list("stages", "tests") if isinstance(test, dict)]
    if not tests:
        return ""
    rows: list[list[Cell]] = []
    for arm in record.arms:
        scores = record.get_list("stages", "arms", arm, "after")
        means = record.get_list("stages", "arms", arm, "average")
        for index, row in enumerate(scores):
            name = f"{record.arm_name(arm)}, after stage {index}"
            cells = [_score(record, summary) for summary in row]
            # Results of older versions have no means.
            cells.append(_score(record, means[index] if index < len(means) else None))
            rows.append([name, *cells])
        losses = record.get_list("stages", "arms", arm, "forgetting")
        if losses:
            cells = [_loss(record, summary) for summary in losses]
            cells.append(_loss(record, record.get(arm, "forgetting")))
            rows.append([f"{record.arm_name(arm)}, forgetting", *cells])
    header = ["Network", *(_title(test) for test in tests), "Mean"]
    metric = display_title(str(record.get("stages", "metric")))
    caption = (
        f"{metric} on the test data of each stage, mean over the seeds. Forgetting is the value "
        "after the last stage with these data minus the value at the end: lower is better. Its "
        "mean is over the tests of earlier stages"
    )
    return table(caption, header, rows) + _gain_sentence(record)


def _gain_sentence(record: Record) -> str:
    """Paragraph on the gain in the mean over all tests; empty without the student alone."""
    mean = record.get_number("stages", "gains", "alone", "mean")
    if mean is None:
        return ""
    text = (
        "Gain over the student alone in the mean over these tests: "
        f"{points(mean, record.is_fraction)}"
    )
    ends = [finite(end) for end in record.get_list("stages", "gains", "alone", "interval")]
    if len(ends) == 2 and None not in ends:
        low, high = (points(end, record.is_fraction) for end in ends)
        text += f", 95 % interval {low} to {high}"
    return f"<p>{escape(text)}.</p>"


def _title(test: dict[str, Any]) -> str:
    name, data = str(test.get("name")), str(test.get("data"))
    count = len(test.get("classes") or ())
    return f"{name} ({data}, {count} classes)"


def _score(record: Record, summary: Any) -> Cell:
    mean, std = _mean_and_std(summary)
    text = amount(mean, record.is_fraction)
    return text, spread(mean, std, record.is_fraction).removeprefix(text)


def _loss(record: Record, summary: Any) -> Cell:
    return points(_mean_and_std(summary)[0], record.is_fraction)


def _mean_and_std(summary: Any) -> tuple[float | None, float | None]:
    if not isinstance(summary, dict):
        return None, None
    return finite(summary.get("mean")), finite(summary.get("std"))
