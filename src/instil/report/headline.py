"""Result of a run in one sentence, and a sentence for each baseline."""

from __future__ import annotations

from instil.report.evidence import is_near_chance
from instil.report.labels import label_counts
from instil.report.names import display_name
from instil.report.quantities import amount, count, points, spread
from instil.report.record import Record


def headline_sentence(record: Record) -> str:
    """Result of the distilled student, with its labels, its gain and its share of the teacher."""
    metric = record.metric
    value = record.mean("distilled", metric)
    std = record.get_number("distilled", metric, "std")
    if value is None:
        return "This run has no distilled student yet."
    labels = _labels(record)
    subject = f"{labels}, the distilled student" if labels else "The distilled student"
    result = f"{spread(value, std, record.is_fraction)} {display_name(metric)}"
    if record.lower_is_better:
        score = spread(value, std, record.is_fraction)
        result = f"a {display_name(metric)} of {score} (lower is better)"
    gain = record.get_number("gain", "mean")
    over_alone = ""
    if gain is not None:
        interval = interval_note(record, "gain")
        over_alone = f", {_difference(record, gain)} the same student trained alone{interval}"
    return f"{subject} reaches {result}{over_alone}{_over_teacher(record, value)}."


def baseline_sentences(record: Record) -> list[str]:
    """Difference of the distilled student from each baseline other than the student alone."""
    sentences = []
    for arm in record.baselines:
        gain = record.get_number("gains", arm, "mean") or 0.0
        interval = interval_note(record, "gains", arm) if len(record.seeds) != 1 else ""
        is_noise = record.get("gains", arm, "significant") is not True and len(record.seeds) > 1
        noise = ", which is within the noise" if is_noise else ""
        difference = _difference(record, gain)
        sentences.append(f"It is {difference} {record.arm_noun(arm)}{interval}{noise}.")
    return sentences


def exported_sentence(record: Record) -> str:
    """Arm of the exported student; empty if it is the distilled one."""
    if record.exported_arm == "distilled":
        return ""
    name = record.arm_noun(record.exported_arm)
    return f"The exported student is the one of the baseline {name}, not the distilled one."


def teacher_ratio(record: Record, *keys: str) -> float | None:
    """Cost of the teacher divided by that of the student; None if one of them is unknown.

    Args:
        record: run.
        keys: path of a number in the cost, such as ``"parameters"``.
    """
    teacher = record.get_number("cost", "teacher", *keys)
    student = record.get_number("cost", "student", *keys)
    return teacher / student if teacher and student else None


def interval_note(record: Record, *keys: str) -> str:
    """Confidence interval of the gain at a path of the result, in brackets."""
    num_seeds = len(record.seeds)
    if num_seeds == 1:
        return " (one seed, so the noise is unknown)"
    interval = record.get_interval(*keys)
    if interval is None:
        return ""
    low, high = (points(end, record.is_fraction, sign=False) for end in interval)
    level = amount(record.get_number(*keys, "level") or 0.95, digits=0)
    paired = "paired " if record.get(*keys, "paired") else ""
    seeds = f", {num_seeds} {paired}seeds" if num_seeds else ""
    return f" ({level} interval {low} to {high}{seeds})"


def _labels(record: Record) -> str:
    """Labels of student and teacher, as the beginning of a sentence."""
    counts = label_counts(record)
    if counts is None:
        return ""
    begin = f"With {count(counts.student)} of {count(counts.train)} labels"
    if not counts.teachers:
        return begin
    teachers = " and ".join(count(value) for value in counts.teachers)
    return f"{begin}, from a teacher trained with {teachers}"


def _difference(record: Record, gain: float) -> str:
    """Gain in words, such as ``1.2 points above``."""
    text = points(abs(gain), record.is_fraction, sign=False)
    if not any(digit in "123456789" for digit in text):
        return "equal to"
    is_above = (gain > 0) != record.lower_is_better
    unit = " points" if record.is_fraction else ""
    return f"{text}{unit} {'above' if is_above else 'below'}"


def _over_teacher(record: Record, value: float) -> str:
    """Comparison with the teacher: the share of its metric that the student keeps."""
    teacher = record.mean("teacher", record.metric)
    if teacher is None:
        return ""
    score = amount(teacher, record.is_fraction)
    if record.lower_is_better:
        return f"; the teacher reaches {score}"
    if is_near_chance(record):
        return f"; the teacher itself ({score}) is hardly better than guessing"
    if value > teacher:
        return f"; that is more than its teacher reaches ({score})"
    if teacher <= 0:
        return ""
    share = amount(value / teacher, digits=0)
    comparison = f"; it keeps {share} of the teacher’s {display_name(record.metric)}"
    ratio = teacher_ratio(record, "parameters")
    if ratio is None:
        return comparison
    part = f"1/{ratio:.0f}" if ratio >= 1.95 else amount(1 / ratio, digits=0)
    return f"{comparison} with {part} of its parameters"
