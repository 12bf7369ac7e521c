"""The run in plain words and readable numbers."""

from __future__ import annotations

from instil.report.evidence import teacher_guesses
from instil.report.record import Record, decimals, finite

NAMES = {
    "teacher": "Teacher",
    "alone": "Student alone",
    "label_smoothing": "Label smoothing",
    "pseudo_labels": "Pseudo-labels",
    "noise": "White noise",
    "blobs": "Smooth noise",
    "distilled": "Distilled student",
    "accuracy": "accuracy",
    "ece": "calibration error",
    "miou": "mIoU",
    "auroc": "AUROC",
    "map": "mAP",
    "iou": "mean IoU",
    "r2": "R²",
    "mae": "mean absolute error",
    "bits_per_byte": "bits per byte",
    "fgsm": "accuracy under FGSM",
    "pgd": "accuracy under PGD",
}
NARROW = "\N{NARROW NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
PLUS_MINUS = "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"
MISSING = "\N{EN DASH}"


def display_name(key: str) -> str:
    """An arm or a metric as a reader would call it."""
    return NAMES.get(key, key.replace("_", " "))


def amount(
    value: float | None, fraction: bool = True, digits: int | None = None, unit: bool = True
) -> str:
    """A metric: 0.951 as "95.1 %" where it is a fraction, else with four significant digits."""
    if value is None:
        return MISSING
    text = (
        f"{100 * value:.{1 if digits is None else digits}f}"
        if fraction
        else f"{value:,.{decimals(value) if digits is None else digits}f}".replace(",", NARROW)
    )
    return text.replace("-", MINUS) + (f"{NARROW}%" if fraction and unit else "")


def spread(value: float | None, std: float | None, fraction: bool = True) -> str:
    """A mean with its standard deviation, where there is one."""
    return amount(value, fraction) + (
        f"{PLUS_MINUS}{amount(std, fraction, unit=False)}"
        if value is not None and std is not None
        else ""
    )


def points(value: float | None, fraction: bool = True, sign: bool = True) -> str:
    """A difference of two metrics, in percentage points where they are fractions."""
    text = amount(value, fraction, unit=False)
    return f"+{text}" if sign and value is not None and value > 0 else text


def size(count: float | None) -> str:
    """Bytes in the unit that keeps the number short."""
    if count is None:
        return MISSING
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return (
                f"{count:.0f}{NARROW}{unit}"
                if unit == "B" or count >= 99.95
                else f"{count:.1f}{NARROW}{unit}"
            )
        count /= 1000
    return f"{count:.1f}{NARROW}GB"


def milliseconds(value: float | None) -> str:
    """A latency to three significant digits."""
    return (
        MISSING
        if value is None
        else f"{value:.0f}{NARROW}ms"
        if value >= 100
        else f"{value:.3g}{NARROW}ms"
    )


def power(value: float) -> str:
    """A tiny number in powers of ten."""
    digit, exponent = f"{value:.0e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return "0" if value == 0 else f"{digit}{NARROW}×{NARROW}10{raised}"


def duration(seconds: float | None) -> str:
    """Seconds, minutes or hours."""
    if seconds is None:
        return MISSING
    if seconds < 90:
        return f"{seconds:.1f}{NARROW}s" if seconds < 10 else f"{seconds:.0f}{NARROW}s"
    return f"{seconds / 60:.0f}{NARROW}min" if seconds < 5400 else f"{seconds / 3600:.1f}{NARROW}h"


def count(number: float | None) -> str:
    """A whole number with its thousands apart."""
    return MISSING if number is None else f"{number:,.0f}".replace(",", NARROW)


def times(ratio: float) -> str:
    """How many times: 20.4 as "20×", 1.34 as "1.3×"."""
    return f"{ratio:.0f}×" if ratio >= 9.95 else f"{ratio:.1f}×"


def ratio(record: Record, *keys: str) -> float | None:
    """Teacher's cost over the student's."""
    above, below = record.number("cost", "teacher", *keys), record.number("cost", "student", *keys)
    return above / below if above and below else None


def headline_sentence(record: Record) -> str:
    """The whole result in one sentence, with the labels that student and teacher knew."""
    metric = record.metric
    value, std = (record.number("distilled", metric, key) for key in ("mean", "std"))
    if value is None:
        return "This run has no distilled student yet."
    reached = f"{spread(value, std, record.fraction)} {display_name(metric)}"
    if record.lower_is_better:
        reached = (
            f"a {display_name(metric)} of {spread(value, std, record.fraction)} (lower is better)"
        )
    gain = record.number("gain", "mean")
    against = (
        f", {_difference(record, gain)} the same student trained alone{_interval(record, 'gain')}"
        if gain is not None
        else ""
    )
    begin = label_counts(record)
    subject = f"{begin}, the distilled student" if begin else "The distilled student"
    return f"{subject} reaches {reached}{against}{_beside_teacher(record, value)}."


def label_counts(record: Record) -> str:
    """Labels that the student and its teacher learned from; empty if both knew all of them."""
    train = record.number("data", "train")
    student = record.number("labels", "student")
    if student is None:
        student = record.number("data", "labelled")
    if student is None or train is None or record.at("data", "surrogate") is not None:
        return ""
    known = record.at("labels", "teachers")
    teachers = [one for one in known if isinstance(one, dict)] if isinstance(known, list) else []
    counts = {finite(one.get("labelled")) for one in teachers} - {None}
    all_known = all(finite(one.get("labelled")) == finite(one.get("samples")) for one in teachers)
    if student >= train and all_known:
        return ""
    begin = f"With {count(student)} of {count(train)} labels"
    if not counts:
        return begin
    words = " and ".join(count(number) for number in sorted(counts, key=lambda one: one or 0))
    return f"{begin}, from a teacher that knew {words}"


def baseline_sentences(record: Record) -> list[str]:
    """A sentence for each simpler method that a gain must beat."""
    sentences = []
    gains = record.at("gains")
    for arm in gains if isinstance(gains, dict) else ():
        gain, significant = (
            record.number("gains", arm, "mean"),
            record.at("gains", arm, "significant"),
        )
        if gain is not None:
            interval = _interval(record, "gains", arm) if len(record.seeds) != 1 else ""
            noise = (
                "" if significant is True or len(record.seeds) < 2 else "; that is within the noise"
            )
            sentences.append(
                f"It is {_difference(record, gain)} {display_name(arm).lower()}{interval}{noise}."
            )
    return sentences


def _difference(record: Record, gain: float) -> str:
    size = points(abs(gain), record.fraction)
    if not any(digit in "123456789" for digit in size):
        return "level with"
    above = (gain > 0) != record.lower_is_better
    unit = " points" if record.fraction else ""
    return f"{size.lstrip('+')}{unit} {'above' if above else 'below'}"


def _interval(record: Record, *keys: str) -> str:
    interval, seeds = record.interval(*keys), len(record.seeds)
    if seeds == 1:
        return " (one seed, so the noise is not known)"
    if interval is None:
        return ""
    low, high = (points(end, record.fraction, sign=False) for end in interval)
    paired = "paired " if record.at(*keys, "paired") else ""
    return f" ({100 * (record.number(*keys, 'level') or 0.95):.0f}{NARROW}% interval {low} to {high}{f', {seeds} {paired}seeds' if seeds else ''})"


def _beside_teacher(record: Record, value: float) -> str:
    """How the student stands beside the teacher: what it keeps, or that the teacher is no good."""
    teacher, smaller = record.number("teacher", record.metric, "mean"), ratio(record, "parameters")
    if record.lower_is_better:
        return "" if teacher is None else f"; the teacher has {amount(teacher, record.fraction)}"
    if teacher is not None and teacher_guesses(record):
        return f"; the teacher is no good: {amount(teacher)} is hardly better than guessing"
    if teacher is not None and value > teacher:
        return f"; that is more than its teacher has ({amount(teacher, record.fraction)})"
    share = (
        f"keeps {100 * value / teacher:.0f}{NARROW}% of the teacher’s {display_name(record.metric)}"
        if teacher and teacher > 0
        else ""
    )
    part = (
        f"1/{smaller:.0f} of its parameters"
        if smaller and smaller >= 1.95
        else f"{100 / smaller:.0f}{NARROW}% of its parameters"
        if smaller
        else ""
    )
    return f"; it {share}{f' with {part}' if part else ''}" if share else ""
