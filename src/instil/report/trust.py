"""Checks of the numbers of a run, each with its outcome."""

from __future__ import annotations

from typing import Literal

from instil.report.quantities import amount, points, power_of_ten
from instil.report.record import Record
from instil.report.speed_quality import exported_value

Check = tuple[Literal["good", "open"], str]
"""Outcome, and a sentence."""
SMALL_LOSS = 0.01
"""Loss of the headline metric by quantisation that counts as none."""


def trust_checks(record: Record) -> list[Check]:
    """Checks that support the result, and those that call for caution."""
    checks = [
        _check_seeds(record),
        _check_noise(record),
        *_check_baselines(record),
        _check_calibration(record),
        _check_agreement(record),
        _check_onnx(record),
        _check_int8(record),
    ]
    return [check for check in checks if check]


def _check_seeds(record: Record) -> Check:
    num_seeds = len(record.seeds)
    if num_seeds < 2:
        return "open", "One seed only. Use three or more seeds to estimate the noise."
    paired = ""
    if record.get("gain", "paired"):
        shared = "initial weights and order of the data"
        if record.get("training", "fitted"):
            shared = "options of the estimator and labelled samples"
        paired = f", in pairs that share seed, {shared}"
    return "good" if num_seeds > 2 else "open", f"{num_seeds} seeds{paired}."


def _check_noise(record: Record) -> Check | None:
    gain = record.get_number("gain", "mean")
    if gain is None or len(record.seeds) < 2:
        return None
    interval = f"{amount(record.get_number('gain', 'level') or 0.95, digits=0)} interval"
    if record.get("gain", "significant") is not True:
        low, high = record.get_interval("gain") or (0.0, 0.0)
        reason = f"its {interval} contains zero"
        if not low <= 0 <= high:
            reason = f"{len(record.seeds)} equal differences are too few to be significant"
        return "open", f"The difference from the student alone is within the noise: {reason}."
    sentence = (
        "The difference from the student alone is larger than the noise: its "
        f"{interval} does not contain zero."
    )
    return "good" if gain > 0 else "open", sentence


def _check_baselines(record: Record) -> list[Check]:
    checks: list[Check] = []
    for arm in record.baselines:
        gain = record.get_number("gains", arm, "mean") or 0.0
        is_clear = record.get("gains", arm, "significant") is True
        if len(record.seeds) < 2:
            relation = "better than" if gain > 0 else "worse than"
            noise = " in this one seed"
        elif gain > 0:
            relation = "better than"
            noise = ", by more than the noise" if is_clear else ", but not by more than the noise"
        else:
            relation = "clearly worse than" if is_clear else "not better than"
            noise = ", by more than the noise" if is_clear else ""
        sentence = f"It is {relation} the baseline {record.arm_noun(arm)}{noise}."
        checks.append(("good" if is_clear and gain > 0 else "open", sentence))
    return checks


def _check_calibration(record: Record) -> Check | None:
    alone = record.mean("alone", "ece")
    distilled = record.mean("distilled", "ece")
    if distilled is None:
        return None
    comparison = f"; that of the student alone is {amount(alone)}" if alone is not None else ""
    is_good = alone is None or distilled <= alone
    sentence = f"Its expected calibration error is {amount(distilled)}{comparison}."
    return "good" if is_good else "open", sentence


def _check_agreement(record: Record) -> Check | None:
    alone = record.mean("alone", "agreement")
    distilled = record.mean("distilled", "agreement")
    if distilled is None:
        return None
    comparison = f", the student alone on {amount(alone)}" if alone is not None else ""
    is_closer = alone is None or distilled > alone
    sentence = f"It agrees with the teacher on {amount(distilled)} of the test samples{comparison}."
    return "good" if is_closer else "open", sentence


def _check_onnx(record: Record) -> Check | None:
    difference = record.get_number("export", "onnx", "max_difference")
    if difference is None:
        return None
    tolerance = power_of_ten(difference)
    return "good", f"The ONNX file gives the same logits as PyTorch, to within {tolerance}."


def _check_int8(record: Record) -> Check | None:
    """Loss of the headline metric by quantisation, measured on both files where possible."""
    quantized = record.get_number("export", "int8", record.metric)
    original = record.get_number("export", "int8", f"{record.metric}_float")
    if original is None:
        original = exported_value(record)
    if quantized is None or original is None:
        return None
    loss = record.improvement(original, quantized)
    unit = " points" if record.is_fraction else ""
    price = f"{points(loss, record.is_fraction, sign=False)}{unit}" if loss > 0 else "nothing"
    sentence = (
        f"8-bit weights and activations cost {price} "
        f"({amount(quantized, record.is_fraction)} on the test split)."
    )
    return "good" if loss < SMALL_LOSS else "open", sentence
