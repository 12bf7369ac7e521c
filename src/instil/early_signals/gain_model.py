"""Model of the order of methods, from the signals of a method and finished studies."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from instil import catalogue

RIDGE = 3.0
"""Penalty of the squared coefficients."""
LOG_RANGE = (-2.0, 3.0)
"""Range of the decimal logarithm of a ratio of gradient norms; other values are cut."""


def method_kind(name: str) -> str:
    """Return the kind of a method: the folder of its objective, or ``scheme``; empty if unknown.

    Args:
        name: name of an objective or a scheme.

    Example:
        >>> method_kind("fitnet"), method_kind("mutual"), method_kind("alone")
        ('features', 'scheme', '')
    """
    if name in catalogue.names("objective"):
        module: str = catalogue.find("objective", name).__module__
        return module.split(".")[2] if module.startswith("instil.") else "objective"
    return "scheme" if name in catalogue.names("scheme") else ""


def features_of(method: str, signals: Mapping[str, Any] | None) -> dict[str, float]:
    """Return the features of a method: its kind, its name and the signals that it has.

    Args:
        method: name of an objective or a scheme.
        signals: plain data of ``GradientSignals``; None without.

    Example:
        >>> features_of("fitnet", {"norm_ratio": 100.0, "cosine": -0.5})
        {'kind:features': 1.0, 'method:fitnet': 1.0, 'log_norm_ratio': 2.0, 'cosine': -0.5}
    """
    features = {f"kind:{method_kind(method)}": 1.0, f"method:{method}": 1.0}
    if signals and signals["norm_ratio"] > 0:
        low, high = LOG_RANGE
        features["log_norm_ratio"] = min(high, max(low, math.log10(signals["norm_ratio"])))
        features["cosine"] = signals["cosine"]
    return features


@functools.cache
def read_gain_model(file: str | None = None) -> dict[str, Any]:
    """Read a model.

    Args:
        file: file of ``benchmarks/signals.py``. None: the shipped model.

    Returns:
        ``sources``, ``kinds`` of labels, ``means``, ``coefficients`` and ``leave_one_task_out``.

    Raises:
        ValueError: if the file has no model.
    """
    shipped = resources.files("instil.early_signals") / "gain_model.json"
    path = shipped if file is None else Path(file)
    try:
        model: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: the model of gain cannot be read: {error}") from error
    if missing := sorted({"kinds", "means", "coefficients"} - set(model)):
        raise ValueError(
            f"{file}: {', '.join(missing)} missing. Expected a model of gain, a file of "
            "benchmarks/signals.py --model"
        )
    return model


def predicted_rank(
    method: str, signals: Mapping[str, Any] | None, model: Mapping[str, Any] | None = None
) -> float:
    """Return the predicted rank of the gain of a method, about -1 (worst) to 1 (best).

    A method without a finished study has the mean of its kind.

    Args:
        method: name of an objective or a scheme.
        signals: plain data of ``GradientSignals``; None without.
        model: result of ``read_gain_model``. None: the shipped model.
    """
    model = read_gain_model() if model is None else model
    total = 0.0
    for name, value in features_of(method, signals).items():
        centred = value - model["means"].get(name, 0.0)
        total += model["coefficients"].get(name, 0.0) * centred
    return total
