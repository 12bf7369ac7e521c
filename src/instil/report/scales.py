"""Axes of a chart: ticks at round values, their labels, and positions in pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
"""Round distances of two ticks, times a power of ten."""


@dataclass(frozen=True)
class Scale:
    """Mapping from values to pixels.

    Args:
        low: value at ``start``.
        high: value at ``end``.
        start: position in pixels.
        end: position in pixels.
        is_log: whether the scale is logarithmic.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        low, high, position = self.low, self.high, value
        if self.is_log:
            # Values of zero and below have no logarithm; they land left of the axis.
            low, high, position = math.log(low), math.log(high), math.log(max(value, self.low / 10))
        share = (position - low) / ((high - low) or 1.0)
        return self.start + share * (self.end - self.start)


def linear_ticks(low: float, high: float, count: int) -> list[float]:
    """Round values between two ends.

    Args:
        low: lower end.
        high: upper end.
        count: approximate number of values.

    Example:
        >>> linear_ticks(0.0, 1.0, 5)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / max(1, count)
    if rough <= 0 or not math.isfinite(rough):
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    # The factors 0.999 and 1e-9 accept values that rounding moved by an ulp.
    step = next(step * power for step in STEPS if step * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between two ends; only powers over many decades."""
    first = math.floor(math.log10(low))
    last = math.ceil(math.log10(high))
    factors = (1,) if last - first > 4 else (1, 2, 5)
    ticks = []
    for exponent in range(first, last + 1):
        ticks += [float(f"{factor}e{exponent}") for factor in factors]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]


def padded_range(values: Sequence[float], from_zero: bool, is_log: bool) -> tuple[float, float]:
    """Range of an axis with a margin around all values.

    Args:
        values: values to show.
        from_zero: include zero, without a margin where the axis ends there.
        is_log: whether the axis is logarithmic.

    Returns:
        Lower and upper end.
    """
    low = min(values, default=0.0)
    high = max(values, default=1.0)
    if is_log:
        return low / 1.25, high * 1.25
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    margin = 0.05 * ((high - low) or abs(high) or 1.0)
    start = low if from_zero and low == 0 else low - margin
    end = high if from_zero and high == 0 else high + margin
    return start, end


def tick_label(value: float, form: str) -> str:
    """Text of a tick.

    Args:
        value: value of the tick.
        form: ``tickformat`` of plotly, for a percentage or a plain number.

    Example:
        >>> tick_label(0.875, ".1~%")
        '87.5%'
        >>> tick_label(0.9, ".0%")
        '90%'
    """
    text = f"{value:.6g}"
    if form.endswith("%"):
        text = f"{100 * value:.{1 if '1' in form else 0}f}"
        if "." in text:
            text = text.rstrip("0").rstrip(".")
        text += "%"
    return text.replace("-", "\N{MINUS SIGN}") if value else text.lstrip("-")
