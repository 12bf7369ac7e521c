"""Scores of a run on the test data of all stages, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instil.report.quantities import amount, plain
from instil.report.record import Record


def stages_line(result: Mapping[str, Any]) -> str:
    """Return the scores of the distilled student on the tests of all stages, at the end.

    Returns:
        Such as ``Distilled student at the end, by test data: first 85.3 %.``; empty if all stages
        have the same data, or before the end.
    """
    record = Record.of_result(result)
    rows = record.get_list("stages", "arms", "distilled", "after")
    if not rows:
        return ""
    parts = []
    for test, summary in zip(record.get_list("stages", "tests"), rows[-1], strict=True):
        mean = None if summary is None else summary["mean"]
        parts.append(f"{test['name']} {plain(amount(mean, record.is_fraction))}")
    return f"Distilled student at the end, by test data: {', '.join(parts)}."
