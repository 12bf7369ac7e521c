"""Whether the numbers can be believed: checks with their outcome, and how they were measured."""

from __future__ import annotations

from instil.report import text
from instil.report.plots import exported_value
from instil.report.record import Record, finite

Check = tuple[str, str]
"""good | open, and a sentence."""


def trust_checks(record: Record) -> list[Check]:
    """What speaks for the result, and what does not."""
    found = [
        _seeds(record),
        _noise(record),
        *_against(record),
        _calibrated(record),
        _agrees(record),
        _onnx(record),
        _int8(record),
    ]
    return [check for check in found if check]


def _seeds(record: Record) -> Check:
    n = len(record.seeds)
    if n < 2:
        return (
            "open",
            "One seed only: another seed might tell another story. Three or more show the noise.",
        )
    paired = (
        ", in pairs that share seed, initial weights and order of the data"
        if record.at("gain", "paired")
        else ""
    )
    return "good" if n > 2 else "open", f"{n} seeds{paired}."


def _noise(record: Record) -> Check | None:
    significant, level = record.at("gain", "significant"), record.number("gain", "level") or 0.95
    if record.number("gain", "mean") is None or len(record.seeds) < 2:
        return None
    interval = f"{100 * level:.0f}{text.NARROW}% interval"
    if significant is True:
        tone = "good" if (record.number("gain", "mean") or 0) > 0 else "open"
        return (
            tone,
            f"The difference from the student alone is larger than the noise: its {interval} stays clear of zero.",
        )
    return (
        "open",
        f"The difference from the student alone is within the noise: its {interval} reaches zero.",
    )


def _against(record: Record) -> list[Check]:
    gains = record.at("gains")
    found = []
    for arm in gains if isinstance(gains, dict) else ():
        gain, sure = (
            record.number("gains", arm, "mean"),
            record.at("gains", arm, "significant") is True,
        )
        if gain is not None:
            ahead = "better than" if gain > 0 else "worse than"
            if gain <= 0 and len(record.seeds) > 1:
                ahead = "clearly worse than" if sure else "not better than"
            much = (
                " in this one seed"
                if len(record.seeds) < 2
                else ", by more than the noise"
                if sure
                else ", but not by more than the noise"
                if gain > 0
                else ""
            )
            found.append(
                (
                    "good" if sure and gain > 0 else "open",
                    f"It is {ahead} {text.display_name(arm).lower()}, a simpler way to the same end{much}.",
                )
            )
    return found


def _calibrated(record: Record) -> Check | None:
    before, after = record.number("alone", "ece", "mean"), record.number("distilled", "ece", "mean")
    if after is None:
        return None
    than = f", {text.amount(before)} for the student alone" if before is not None else ""
    return (
        "good" if before is None or after <= before else "open",
        f"Its confidence is off by {text.amount(after)} on average{than}.",
    )


def _agrees(record: Record) -> Check | None:
    before, after = (
        record.number("alone", "agreement", "mean"),
        record.number("distilled", "agreement", "mean"),
    )
    if after is None:
        return None
    than = f"; the student alone on {text.amount(before)}" if before is not None else ""
    closer = before is None or after > before
    return (
        "good" if closer else "open",
        f"It gives the teacher’s answer on {text.amount(after)} of the test samples{than}.",
    )


def _onnx(record: Record) -> Check | None:
    difference = record.number("export", "onnx", "max_difference")
    return (
        None
        if difference is None
        else (
            "good",
            f"The ONNX file gives the same logits as PyTorch, to within {text.power(difference)}.",
        )
    )


def _int8(record: Record) -> Check | None:
    small, before = (
        record.number("export", "int8", record.metric),
        record.number("export", "int8", f"{record.metric}_float"),
    )
    whole = before if before is not None else exported_value(record)
    if small is None or whole is None:
        return None
    lost = f"{text.points(whole - small, record.fraction, sign=False)}{' points' if record.fraction else ''}"
    said = f"cost {lost}" if whole > small else "cost nothing"
    return (
        "good" if whole - small < 0.01 else "open",
        f"8-bit weights and activations {said} ({text.amount(small, record.fraction)} on the test split).",
    )


def measurement_terms(record: Record) -> list[tuple[str, str]]:
    """How the numbers came about: terms and sentences."""
    said = [("Data", _data(record))]
    objectives = record.at("objectives")
    losses = (
        f" with {', '.join(map(str, objectives))}"
        if isinstance(objectives, dict) and objectives
        else ""
    )
    said.append(
        ("Method", f"{str(record.at('scheme') or 'unnamed').capitalize()} distillation{losses}.")
    )
    said.append(("Same for all", _same_for_all(record)))
    if seen := _samples_seen(record):
        said.append(("Samples seen", seen))
    said.append(
        (
            "Numbers",
            "Of the last epoch, not the best one. Choices are made on the validation split; the test split decides nothing.",
        )
    )
    if isinstance(spent := record.at("privacy"), dict):
        told = f"epsilon {spent['epsilon']:.3g} at delta {spent['delta']:.3g}, for {spent['answered']} answers to {spent['questions']} questions"
        said.append(
            (
                "Privacy",
                f"The student learned of the private data by noisy votes alone: {told}. The scores here are not private.",
            )
        )
    if record.seeds:
        several = (
            ". ± is the standard deviation between them (n − 1 in the denominator)"
            if len(record.seeds) > 1
            else ""
        )
        said.append(("Seeds", f"{', '.join(map(str, record.seeds))}{several}."))
    return said


def _same_for_all(record: Record) -> str:
    """What the arms share; only what holds for each of them."""
    if record.at("data", "surrogate") is not None:
        arms = "Simpler methods and the distilled student"
    else:
        arms = "The student alone, simpler methods and the distilled student"
    sentence = f"{arms} start from the same initial weights and train for the same number of steps."
    seen = record.at("labels", "samples_seen")
    if isinstance(seen, dict) and len(set(seen.values())) == 1 and len(seen) > 1:
        sentence += " They see the same samples in the same order."
    return f"{sentence} They differ in what they learn from."


def _samples_seen(record: Record) -> str:
    """Samples that each arm goes through, where they differ; the others are unlabelled."""
    seen = record.at("labels", "samples_seen")
    if not isinstance(seen, dict) or len(set(seen.values())) < 2:
        return ""
    groups: dict[float, list[str]] = {}
    for arm, number in seen.items():
        if (samples := finite(number)) is not None:
            groups.setdefault(samples, []).append(text.display_name(arm).lower())
    parts = [f"{', '.join(arms)}: {text.count(samples)}" for samples, arms in groups.items()]
    return f"{'; '.join(parts)}. An arm that learns from labels alone sees the labelled samples."


def _data(record: Record) -> str:
    counts = [
        (record.number("data", key), words)
        for key, words in (
            ("train", "to train"),
            ("validation", "to validate"),
            ("test", "to test"),
        )
    ]
    without = record.at("data", "surrogate") is not None
    counts = counts[1:] if without else counts
    parts = ", ".join(
        f"{text.count(count)} {words}" for count, words in counts if count is not None
    )
    labelled, train = record.number("data", "labelled"), record.number("data", "train")
    few = (
        f" Only {labelled:.0f} of the training samples have a label."
        if labelled is not None and train is not None and labelled < train
        else ""
    )
    few = (
        f" The student was shown none of the training images, but {_instead(record)}."
        if without
        else few
    )
    return f"{record.at('data', 'name') or 'unnamed'}{f': {parts}' if parts else ''}.{few}"


def _instead(record: Record) -> str:
    """What the student saw in the place of training images."""
    images = str(record.at("data", "surrogate"))
    return {
        "scheme": "those that the method made",
        "noise": "white noise",
        "blobs": "smooth noise",
    }.get(images, f"those of {images}")
