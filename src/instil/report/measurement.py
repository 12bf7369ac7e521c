"""Conditions under which the numbers of a run were measured."""

from __future__ import annotations

from typing import Any

from instil.report.quantities import count
from instil.report.record import Record, finite

SURROGATES = {
    "scheme": "images that the method generated",
    "noise": "white noise",
    "blobs": "smooth noise",
}
"""Images that replace the training data; other names are those of a data source."""


def measurement_terms(record: Record) -> list[tuple[str, str]]:
    """Data, method, budget and seeds of a run, as terms and sentences."""
    terms = [
        ("Data", _data(record)),
        ("Method", _method(record)),
        ("Same for all", _same_for_all(record)),
    ]
    samples_seen = _samples_seen(record)
    if samples_seen:
        terms.append(("Samples seen", samples_seen))
    terms.append(("Numbers", _numbers(record)))
    privacy = record.get("privacy")
    if isinstance(privacy, dict):
        terms.append(("Privacy", _privacy(privacy)))
    if record.seeds:
        terms.append(("Seeds", _seeds(record)))
    return terms


def _data(record: Record) -> str:
    """Name and sizes of the data, and the labels of the student."""
    uses = {"train": "to train", "validation": "to validate", "test": "to test"}
    if record.is_data_free:
        del uses["train"]
    counts = {use: record.get_number("data", key) for key, use in uses.items()}
    parts = [f"{count(value)} {use}" for use, value in counts.items() if value is not None]
    if record.get("data", "streamed"):
        parts.insert(0, "a stream to train")
    sizes = f": {', '.join(parts)}" if parts else ""
    return f"{record.get('data', 'name') or 'unnamed'}{sizes}.{_training_samples(record)}"


def _training_samples(record: Record) -> str:
    if record.is_data_free:
        surrogate = str(record.get("data", "surrogate"))
        images = SURROGATES.get(surrogate, f"images of {surrogate}")
        return f" The student was trained without the training images, on {images}."
    labelled = record.get_number("data", "labelled")
    train = record.get_number("data", "train")
    if labelled is None or train is None or labelled >= train:
        return ""
    return f" Only {count(labelled)} of the training samples have a label."


def _method(record: Record) -> str:
    objectives = record.get_dict("objectives")
    losses = f" with {', '.join(map(str, objectives))}" if objectives else ""
    return f"{str(record.get('scheme') or 'unnamed').capitalize()} distillation{losses}."


def _same_for_all(record: Record) -> str:
    """Conditions that hold for every student of the run."""
    arms = "The student alone, the other baselines and the distilled student"
    if record.is_data_free:
        arms = "The baselines and the distilled student"
    if record.get("training", "fitted"):
        return (
            f"{arms} are the same estimator with the same options, fitted once. They differ in "
            "what they learn from."
        )
    length = "train for the same number of steps"
    if record.get("training", "early_stopping") is not None:
        length = "end by the same rule of early stopping"
    sentence = f"{arms} start from the same initial weights and {length}."
    seen = record.get_dict("labels", "samples_seen")
    if len(seen) > 1 and len(set(seen.values())) == 1:
        sentence += " They see the same samples in the same order."
    return f"{sentence} They differ in what they learn from."


def _samples_seen(record: Record) -> str:
    """Samples of an epoch for each arm; empty if they are equal."""
    seen = record.get_dict("labels", "samples_seen")
    if len(set(seen.values())) < 2:
        return ""
    groups: dict[float, list[str]] = {}
    for arm, value in seen.items():
        samples = finite(value)
        if samples is not None:
            groups.setdefault(samples, []).append(record.arm_name(arm).lower())
    parts = [f"{', '.join(arms)}: {count(samples)}" for samples, arms in groups.items()]
    return f"{'; '.join(parts)}. An arm that learns from labels only sees the labelled samples."


def _numbers(record: Record) -> str:
    """Weights that the metrics belong to."""
    if record.get("training", "fitted"):
        return "Choices are made on the validation split; the test split decides nothing."
    weights = "Metrics are those of the last epoch, not of the best one."
    if record.get("training", "keep") == "best":
        weights = "Metrics are those of the epoch with the best validation metric, in every arm."
    if record.get("training", "average") is not None:
        weights += " The weights are a moving average over the steps."
    return f"{weights} Choices are made on the validation split; the test split decides nothing."


def _privacy(cost: dict[str, Any]) -> str:
    text = (
        "The student learned about the private data from noisy votes only: "
        f"epsilon {cost['epsilon']:.3g} at delta {cost['delta']:.3g}, for {cost['answered']} "
        f"answers to {cost['questions']} questions."
    )
    if "votes_epsilon" in cost:
        text += (
            f" By the margins of these votes epsilon is {cost['votes_epsilon']:.3g}; this number "
            "depends on the private data and must not be published."
        )
    return f"{text} The scores here are not private."


def _seeds(record: Record) -> str:
    seeds = ", ".join(map(str, record.seeds))
    if len(record.seeds) < 2:
        return f"{seeds}."
    return f"{seeds}. ± is the standard deviation between them (n − 1 in the denominator)."
