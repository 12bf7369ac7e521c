"""Position in epochs of the rows that the trainings of an arm recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from instil.report.record import Record, finite

Row = dict[str, Any]


def epoch_rows(record: Record, arm: str) -> Iterator[tuple[Any, float, Row]]:
    """Iterate over the rows of an arm with the number of finished epochs.

    Epochs of later stages are added to those of earlier stages. Several rows within an epoch
    divide it evenly.

    Yields:
        Seed, finished epochs (a fraction within an epoch), row.
    """
    rows = unique_rows(record, arm, "epoch")
    first = min((row["epoch"] for row in rows), default=0)
    offsets = _stage_offsets(rows, first)
    keys = [(row.get("seed"), stage_of(row), row["epoch"]) for row in rows]
    totals = Counter(keys)
    counts: Counter[Any] = Counter()
    for row, key in zip(rows, keys, strict=True):
        seed, stage, epoch = key
        counts[key] += 1
        yield seed, offsets[stage] + epoch - first + counts[key] / totals[key], row


def unique_rows(record: Record, arm: str, clock: str) -> list[Row]:
    """Rows of an arm; a resumed run repeats some steps, and the last row of a step counts.

    Args:
        record: run with the rows of ``metrics.jsonl``.
        arm: name of a training.
        clock: ``epoch`` or ``step``; rows without it are left out.
    """
    rows = {}
    for row in record.metrics:
        if row.get("arm") == arm and finite(row.get(clock)) is not None:
            rows[tuple(row.get(key) for key in ("seed", "stage", "epoch", "step"))] = row
    return list(rows.values())


def _stage_offsets(rows: list[Row], first: int) -> dict[int, int]:
    """Number of epochs of all earlier stages, for each stage."""
    offsets = {}
    total = 0
    for stage in sorted({stage_of(row) for row in rows}):
        offsets[stage] = total
        total += max(row["epoch"] for row in rows if stage_of(row) == stage) - first + 1
    return offsets


def stage_of(row: Row) -> int:
    """Index of the stage of a row."""
    stage: int = row.get("stage") or 0
    return stage
