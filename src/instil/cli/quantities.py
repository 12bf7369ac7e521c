"""Metrics, sizes and times as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instil.report.record import NUMBERS, decimals

BYTES_PER_MB = 1e6


def metric_text(metric: str, summary: Mapping[str, Any] | None) -> str:
    """Return mean and standard deviation of a metric; in percent if it is a fraction."""
    if summary is None:
        return ""
    unit = "" if metric in NUMBERS else " %"
    mean = _digits(metric, summary["mean"])
    std = _digits(metric, summary["std"])
    return f"{mean} ± {std}{unit}" if std else f"{mean}{unit}"


def value_text(metric: str, value: float) -> str:
    """Return one value of a metric with its unit."""
    return _digits(metric, value) + ("" if metric in NUMBERS else " %")


def change_text(metric: str, value: float | None) -> str:
    """Return a difference of a metric with its sign and without unit."""
    return _digits(metric, value, "+")


def _digits(metric: str, value: float | None, sign: str = "") -> str:
    """Return percent with one decimal for a fraction, else four significant digits."""
    if value is None:
        return ""
    if metric not in NUMBERS:
        return f"{100 * value:{sign}.1f}"
    return f"{value:{sign},.{decimals(value)}f}"


def kilobytes(num_bytes: float) -> str:
    """Return a size in kB or MB."""
    if num_bytes >= BYTES_PER_MB:
        return f"{num_bytes / BYTES_PER_MB:.1f} MB"
    return f"{num_bytes / 1e3:.1f} kB"


def milliseconds(latency: Mapping[str, Any]) -> str:
    """Return the median latency."""
    return f"{latency['median_ms']:.2f} ms"
