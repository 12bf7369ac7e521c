"""What the numbers of a run allow to say: the verdict, and whether the teacher is any good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from instil.report.record import Record

Tone = Literal["good", "open", "bad"]
Level = Literal["better", "within_noise", "worse"]

NOUNS = {
    "alone": "the student alone",
    "label_smoothing": "label smoothing",
    "pseudo_labels": "pseudo-labels",
    "noise": "white noise",
    "blobs": "smooth noise",
}
"""Arms in the middle of a sentence."""
STATUS = {"running": "Still running", "failed": "Failed"}
STEP_ABOVE_CHANCE = 0.1
"""Share of the way from guessing to perfect below which a teacher counts as guessing."""


@dataclass(frozen=True)
class Verdict:
    """Tone of the badge, the few words on it, and the sentence that says the same."""

    tone: Tone
    badge: str
    sentence: str


def verdict(record: Record) -> Verdict:
    """Judge a run in three steps.

    The best verdict needs a gain larger than the noise over the student alone and over every
    simpler method of the run; the second one over the student alone; all else is not better.
    """
    status = record.at("status")
    if status not in (None, "complete"):
        badge = STATUS.get(str(status), "Interrupted")
        return Verdict("open", badge, f"{badge}: the numbers are what there is so far.")
    if record.number(*record.main_gain, "mean") is None:
        return Verdict("open", "Nothing to compare", "There is nothing to compare with.")
    if len(record.seeds) == 1:
        return Verdict("open", "One seed only", "One seed cannot tell a gain from noise.")
    if record.main_gain != ("gain",):
        return _without_alone(record)
    over_alone = level(record, "gain")
    if over_alone == "worse":
        return Verdict("bad", "Worse than alone", "Distillation is worse than the student alone.")
    worse = [arm for arm in simpler(record) if level(record, "gains", arm) == "worse"]
    if worse:
        words = _listed(worse)
        where = (
            "better than the student alone"
            if over_alone == "better"
            else "without a gain over the student alone"
        )
        return Verdict("bad", f"Worse than {words}", f"Clearly worse than {words}, {where}.")
    if over_alone == "within_noise":
        return Verdict(
            "open", "Not more than noise", "The gain over the student alone is within the noise."
        )
    equal = [arm for arm in simpler(record) if level(record, "gains", arm) != "better"]
    if equal:
        words = _listed(equal)
        sentence = f"Better than the student alone, not clearly better than {words}."
        return Verdict("open", f"No better than {words}", sentence)
    if not simpler(record):
        sentence = "Better than the student alone; no simpler method was run beside it."
        return Verdict("good", "Better than alone", sentence)
    words = _listed(simpler(record))
    return Verdict("good", "It worked", f"Better than the student alone and than {words}.")


def _without_alone(record: Record) -> Verdict:
    """Verdict of a run without training data: over the best of the methods that need none."""
    words = NOUNS.get(record.main_gain[-1], record.main_gain[-1])
    found = level(record, *record.main_gain)
    if found == "better":
        return Verdict("good", "It worked", f"Better than the answers to {words}.")
    if found == "worse":
        return Verdict("bad", f"Worse than {words}", f"Worse than the answers to {words}.")
    return Verdict("open", "Not more than noise", f"Not clearly better than {words}.")


def level(record: Record, *keys: str) -> Level:
    """Whether the gain at this path is larger than the noise, and in which direction."""
    gain = record.number(*keys, "mean") or 0.0
    if record.at(*keys, "significant") is not True or gain == 0:
        return "within_noise"
    return "better" if gain > 0 else "worse"


def simpler(record: Record) -> list[str]:
    """Simpler methods of the run, with which the distilled student is compared."""
    gains = record.at("gains")
    arms = gains if isinstance(gains, dict) else {}
    return [arm for arm in arms if record.number("gains", arm, "mean") is not None]


def teacher_guesses(record: Record) -> bool:
    """Whether the teacher is hardly better than guessing a class.

    Known only for accuracy on single labels; False for other tasks.
    """
    teacher = record.number("teacher", record.metric, "mean")
    num_classes = len(record.classes)
    if teacher is None or record.metric != "accuracy" or num_classes < 2:
        return False
    if record.at("kind") not in (None, "single"):
        return False
    chance = 1 / num_classes
    return teacher < chance + STEP_ABOVE_CHANCE * (1 - chance)


def _listed(arms: list[str]) -> str:
    words = [NOUNS.get(arm, arm.replace("_", " ")) for arm in arms]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 2 else words)
