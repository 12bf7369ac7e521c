"""Signals before trials in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from instil.early_signals.gain_model import method_kind
from instil.report.quantities import factor

Level = tuple[float, str]
"""Smallest value of a range, and what a value in this range suggests."""

MEANINGS: Mapping[str, tuple[str, tuple[Level, ...]]] = {
    "teacher_score": ("teacher, validation score", ((0.0, "compare it with the student alone"),)),
    "label_agreement": (
        "teacher agrees with validation labels",
        (
            (0.0, "often wrong: its errors are passed on; train the teacher better"),
            (0.7, "sometimes wrong: keep a label loss"),
            (0.95, "reliable: unlabelled samples can be used"),
        ),
    ),
    "memorisation": (
        "training minus validation agreement",
        (
            (-1.0, "similar on samples that it was trained on and on new ones"),
            (0.1, "fits its training labels: unlabelled or augmented samples carry more"),
        ),
    ),
    "entropy": (
        "entropy of the teacher",
        (
            (0.0, "almost certain: use a higher temperature or features"),
            (0.05, "several likely predictions: soft predictions carry information"),
            (0.6, "nearly flat: use a temperature of at most 1"),
        ),
    ),
    "calibration_error": (
        "calibration error of the teacher",
        ((0.0, "confidence is near accuracy"), (0.1, "confidence differs from accuracy")),
    ),
    "unsure_share": (
        "items where the teacher is unsure",
        (
            (0.0, "few: hard pseudo-labels carry nearly the same"),
            (0.1, "some: compare soft predictions with hard pseudo-labels"),
            (0.3, "many: soft predictions carry more than hard pseudo-labels"),
        ),
    ),
    "parameter_ratio": (
        "parameters, teacher / student",
        (
            (0.0, "no capacity gap"),
            (1.5, "moderate capacity gap"),
            (20.0, "large capacity gap: try a smaller teacher or an assistant, too"),
        ),
    ),
    "operation_ratio": (
        "multiply-adds, teacher / student",
        ((0.0, "both need about the same operations"), (1.5, "the student needs fewer operations")),
    ),
    "probe_accuracy": (
        "linear probe of the untrained student",
        ((0.0, "lower bound: training must exceed it"),),
    ),
    "labels_per_class": (
        "labels per class",
        (
            (0.0, "few: a teacher with more labels helps most"),
            (50.0, "moderate"),
            (1000.0, "many: expect a small gain"),
        ),
    ),
    "unlabelled_per_labelled": (
        "unlabelled samples per label",
        (
            (0.0, "few: the labels cover the transfer set"),
            (1.0, "many: pseudo_labels is a strong baseline"),
        ),
    ),
    "level_similarity": (
        "CKA of the last level, student and teacher",
        (
            (0.0, "different: feature losses have much to transfer"),
            (0.5, "similar before training: feature losses have less to transfer"),
        ),
    ),
}
"""Signal -> title, and its ranges from the smallest value. The limits are rules of thumb."""

RATIOS = ("parameter_ratio", "operation_ratio")
COUNTS = ("labels_per_class", "unlabelled_per_labelled")
PLAIN = ("teacher_score", "calibration_error", "level_similarity")


class SignalRow(NamedTuple):
    """One signal of a table.

    Attributes:
        title: name of the signal in plain words.
        value: its value as text.
        meaning: what the value suggests.
    """

    title: str
    value: str
    meaning: str


def task_rows(signals: Mapping[str, Any]) -> list[SignalRow]:
    """Return a row for every signal that is defined.

    Args:
        signals: plain data of ``TaskSignals``.
    """
    values = with_derived(signals)
    return [
        SignalRow(title, _text(name, values[name]), _meaning(levels, values[name]))
        for name, (title, levels) in MEANINGS.items()
        if values.get(name) is not None
    ]


def with_derived(signals: Mapping[str, Any]) -> dict[str, Any]:
    """Add signals that follow from others: ``memorisation`` and ``level_similarity``.

    Args:
        signals: plain data of ``TaskSignals``.
    """
    values = dict(signals)
    train = signals["label_agreement_train"]
    validation = signals["label_agreement"]
    if train is not None and validation is not None:
        values["memorisation"] = train - validation
    if signals["level_similarities"]:
        values["level_similarity"] = signals["level_similarities"][-1]
    return values


def gradient_rows(losses: Mapping[str, Mapping[str, Any]]) -> list[SignalRow]:
    """Return a row for the gradient of every loss besides the label losses.

    Args:
        losses: name of a loss -> plain data of ``GradientSignals``.
    """
    rows = []
    for name, signals in losses.items():
        ratio = signals["norm_ratio"]
        cosine = signals["cosine"]
        meaning = "norms and directions are compatible with the label losses"
        if cosine < -0.1:
            meaning = "conflicts with the label losses: try a smaller weight"
        elif not 0.1 <= ratio <= 10 and method_kind(name) == "logits":
            # Measured: with balanced gradients, the best losses on logits were worse.
            meaning = "far from the label losses, but losses on logits keep their published weight"
        elif not 0.1 <= ratio <= 10:
            size = "smaller" if ratio > 1 else "larger"
            meaning = f"one loss dominates: try a {size} weight"
        value = f"{factor(ratio)}, cosine {cosine:+.2f}"
        rows.append(SignalRow(f"gradient of {name}", value, meaning))
    return rows


def _meaning(levels: tuple[Level, ...], value: float) -> str:
    texts = [text for lower, text in levels if value >= lower]
    return texts[-1] if texts else levels[0][1]


def _text(name: str, value: float) -> str:
    if name in RATIOS:
        return factor(value)
    if name in COUNTS:
        return f"{value:.3g}"
    return f"{value:.3g}" if name in PLAIN else f"{100 * value:.1f} %"
