"""Numbers of labels that the networks of a run learned from."""

from __future__ import annotations

from dataclasses import dataclass

from instil.report.record import Record, finite


@dataclass(frozen=True)
class LabelCounts:
    """Numbers of labelled training samples.

    Args:
        student: labels of the student.
        train: training samples of the student.
        teachers: different numbers of labels of the teachers, in ascending order.
    """

    student: float
    train: float
    teachers: tuple[float, ...]


def label_counts(record: Record) -> LabelCounts | None:
    """Return the numbers of labels of student and teachers.

    Returns:
        None if all networks learn from all labels, if the numbers are unknown, or if the student
        is trained without the training data.
    """
    train = record.get_number("data", "train")
    student = record.get_number("labels", "student")
    if student is None:
        student = record.get_number("data", "labelled")
    if student is None or train is None or record.is_data_free:
        return None
    teachers = [row for row in record.get_list("labels", "teachers") if isinstance(row, dict)]
    counts = {finite(row.get("labelled")) for row in teachers}
    # A teacher that was not trained in this run has None for both numbers.
    is_complete = all(finite(row.get("labelled")) == finite(row.get("samples")) for row in teachers)
    if student >= train and is_complete:
        return None
    return LabelCounts(student, train, tuple(sorted(n for n in counts if n is not None)))
