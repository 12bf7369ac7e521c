"""Limits of a student: latency, size of its file, memory and number of parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from instil.cards import suggestion

BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "MiB": 2.0**20, "GiB": 2.0**30}
UNITS: dict[str, dict[str, float]] = {
    "latency": {"us": 1e-3, "ms": 1.0, "s": 1e3},
    "size": BYTES,
    "memory": BYTES,
    "parameters": {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9},
}
"""Units of each limit, with their value in the unit of ``COSTS``."""

COSTS = {
    "latency": "latency_ms",
    "size": "bytes",
    "memory": "memory_bytes",
    "parameters": "parameters",
}
"""Measured cost of a student that each limit applies to."""


def parse_limits(texts: Iterable[str], path: str = "--limit") -> dict[str, float]:
    """Parse limits such as ``latency=5ms``, ``size=4MB`` or ``parameters=50k``.

    Args:
        texts: one limit each.
        path: option or recipe path, for messages.

    Returns:
        Largest value by the name in ``COSTS``.

    Raises:
        ValueError: for an unknown name or unit, a number that is not positive, or two limits of
            one name.

    Example:
        >>> parse_limits(["latency=5ms", "size=4MB", "parameters=50k"])
        {'latency': 5.0, 'size': 4000000.0, 'parameters': 50000.0}
    """
    limits: dict[str, float] = {}
    for text in texts:
        name, _, amount = text.partition("=")
        if name not in UNITS:
            raise ValueError(
                f"{path}: unknown limit '{name}'. Expected NAME=VALUE with one of the names "
                f"{', '.join(UNITS)}.{suggestion(name, list(UNITS), is_listed=True)}"
            )
        if name in limits:
            raise ValueError(f"{path}: two limits of {name}. Expected one. Remove the other")
        try:
            limits[name] = parse_amount(amount, UNITS[name])
        except ValueError as error:
            raise ValueError(f"{path}: '{text}' is not a limit. {name}: {error}") from error
    return limits


def parse_amount(text: str, units: Mapping[str, float] = BYTES) -> float:
    """Parse a positive number and a unit, in capitals or small letters.

    Args:
        text: the amount, such as ``80GB``.
        units: value of each unit; the empty text for a number without one.

    Raises:
        ValueError: for another text.

    Example:
        >>> parse_amount("1.5GB"), parse_amount("2 gib")
        (1500000000.0, 2147483648.0)
    """
    values = {unit.lower(): value for unit, value in units.items()}
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([a-z]*)", text.strip().lower())
    if match is None or match[2] not in values or float(match[1]) == 0:
        names = ", ".join(unit for unit in units if unit)
        raise ValueError(
            f"Expected a positive number and one of the units {names}, got '{text.strip()}'"
        )
    return float(match[1]) * values[match[2]]


def parse_share(text: str, path: str = "--keep") -> float:
    """Parse a share of the teacher's quality, such as ``99%`` or ``0.99``.

    Args:
        text: the share.
        path: option or recipe path, for messages.

    Raises:
        ValueError: for a share that is not in (0, 1].
    """
    stripped = text.strip()
    try:
        share = float(stripped[:-1]) / 100 if stripped.endswith("%") else float(stripped)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ValueError(
            f"{path}: '{text}' is not a share of the teacher's quality. Expected a share such as "
            "99% or 0.99"
        )
    return share


def violation(costs: Mapping[str, Any], limits: Mapping[str, float]) -> str:
    """Return the limit that a student exceeds, as text; empty if it is within all limits.

    Args:
        costs: measured costs by the names of ``COSTS``; a missing cost is not checked.
        limits: result of ``parse_limits``.
    """
    for name, limit in limits.items():
        value = costs.get(COSTS[name])
        if value is not None and value > limit:
            return f"{name} {describe_cost(name, value)}; the limit is {describe_cost(name, limit)}"
    return ""


def formats(costs: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the costs of each exported file of a student.

    Args:
        costs: result of ``measure_student``.

    Returns:
        ``float32``, and ``int8`` if there is a quantised file.
    """
    files = {"float32": costs}
    if isinstance(costs.get("int8"), dict):
        files["int8"] = {**costs, **costs["int8"]}
    return files


def smallest_file(costs: Mapping[str, Any], limits: Mapping[str, float]) -> float:
    """Return the bytes of the smallest exported file of a student that is within the limits.

    Args:
        costs: result of ``measure_student``.
        limits: result of ``parse_limits``.

    Example:
        >>> smallest_file({"bytes": 400, "int8": {"bytes": 100, "latency_ms": 2.0}}, {})
        100.0
    """
    files = list(formats(costs).values())
    within = [file for file in files if not violation(file, limits)]
    return min(float(file["bytes"]) for file in within or files)


def describe_cost(name: str, value: float) -> str:
    """Return a latency in ms, bytes or a number of parameters with its unit.

    Example:
        >>> describe_cost("size", 4_210_000), describe_cost("parameters", 50e3)
        ('4.21 MB', '50,000')
    """
    if name == "latency":
        return f"{value:.3g} ms"
    if name == "parameters":
        return f"{value:,.0f}"
    for unit in ("GB", "MB", "kB"):
        if value >= BYTES[unit]:
            return f"{value / UNITS['size'][unit]:.3g} {unit}"
    return f"{value:.0f} B"
