"""Verdict on a run, and whether its teacher is better than chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from instil.report.names import enumeration
from instil.report.record import Record

Tone = Literal["good", "open", "bad"]
Level = Literal["better", "within_noise", "worse"]

STATUS = {"running": "Still running", "failed": "Failed"}
STEP_ABOVE_CHANCE = 0.1
"""Share of the way from chance to perfect accuracy that a useful teacher has gone at least."""


@dataclass(frozen=True)
class Verdict:
    """Verdict on a run.

    Args:
        tone: colour of the badge.
        badge: the verdict in a few words.
        sentence: the verdict as a sentence.
    """

    tone: Tone
    badge: str
    sentence: str


def verdict(record: Record) -> Verdict:
    """Judge a run in three steps.

    The best verdict needs gains larger than noise over the student alone and over every baseline.
    The second one needs a gain over the student alone. Everything else is not better.
    """
    status = record.get("status")
    if status not in (None, "complete"):
        badge = STATUS.get(str(status), "Interrupted")
        return Verdict("open", badge, f"{badge}: the numbers are preliminary.")
    if record.get_number(*record.main_gain, "mean") is None:
        return Verdict("open", "Nothing to compare", "The run has nothing to compare with.")
    if len(record.seeds) == 1:
        return Verdict("open", "One seed only", "One seed cannot distinguish a gain from noise.")
    if record.main_gain != ("gain",):
        return _data_free_verdict(record)
    worse = [arm for arm in record.baselines if level(record, "gains", arm) == "worse"]
    over_alone = level(record, "gain")
    if over_alone == "worse":
        return Verdict("bad", "Worse than alone", "Distillation is worse than the student alone.")
    if worse:
        return _worse_than_baselines(_names(record, worse), over_alone)
    if over_alone == "within_noise":
        sentence = "The gain over the student alone is within the noise."
        return Verdict("open", "Within noise", sentence)
    return _better_than_alone(record)


def _names(record: Record, arms: list[str]) -> str:
    return enumeration([record.arm_noun(arm) for arm in arms])


def _worse_than_baselines(names: str, over_alone: Level) -> Verdict:
    if over_alone == "better":
        sentence = f"Clearly worse than {names}, but better than the student alone."
    else:
        sentence = f"Clearly worse than {names}, without a gain over the student alone."
    return Verdict("bad", f"Worse than {names}", sentence)


def _better_than_alone(record: Record) -> Verdict:
    """Verdict of a run with a clear gain over the student alone."""
    equal = [arm for arm in record.baselines if level(record, "gains", arm) != "better"]
    if equal:
        names = _names(record, equal)
        sentence = f"Better than the student alone, but not clearly better than {names}."
        return Verdict("open", f"No better than {names}", sentence)
    if not record.baselines:
        sentence = "Better than the student alone. The run has no other baselines."
        return Verdict("good", "Better than alone", sentence)
    names = _names(record, record.baselines)
    return Verdict("good", "It worked", f"Better than the student alone and than {names}.")


def _data_free_verdict(record: Record) -> Verdict:
    """Verdict of a data-free run: the best noise baseline stands in for the student alone."""
    names = _names(record, [record.main_gain[-1]])
    main_level = level(record, *record.main_gain)
    if main_level == "better":
        sentence = f"Better than a student trained on {names}."
        return Verdict("good", "It worked", sentence)
    if main_level == "worse":
        sentence = f"Worse than a student trained on {names}."
        return Verdict("bad", f"Worse than {names}", sentence)
    sentence = f"Not clearly better than a student trained on {names}."
    return Verdict("open", "Within noise", sentence)


def level(record: Record, *keys: str) -> Level:
    """Compare the gain at a path of the result with the noise."""
    gain = record.get_number(*keys, "mean") or 0.0
    if record.get(*keys, "significant") is not True or gain == 0:
        return "within_noise"
    return "better" if gain > 0 else "worse"


def is_near_chance(record: Record) -> bool:
    """Whether the teacher is hardly better than guessing a class.

    Known only for accuracy on single labels; False for other tasks.
    """
    teacher = record.mean("teacher", record.metric)
    num_classes = len(record.classes)
    if teacher is None or record.metric != "accuracy" or num_classes < 2:
        return False
    if record.get("kind") not in (None, "single"):
        return False
    return accuracy_is_near_chance(teacher, num_classes)


def accuracy_is_near_chance(accuracy: float, num_classes: int) -> bool:
    """Whether an accuracy is hardly better than that of guessing one of the classes.

    Args:
        accuracy: share of correct classes.
        num_classes: number of classes, at least 1.

    Example:
        >>> accuracy_is_near_chance(0.15, 10), accuracy_is_near_chance(0.3, 10)
        (True, False)
    """
    chance = 1 / num_classes
    return accuracy < chance + STEP_ABOVE_CHANCE * (1 - chance)
