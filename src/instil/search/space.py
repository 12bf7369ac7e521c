"""Search space of a method, derived from the annotations of its options."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from math import floor, log10
from typing import Annotated, Any, Literal, get_args, get_origin

from instil import catalogue
from instil.catalogue.signatures import parameters
from instil.core import Schedule
from instil.early_signals.gradients import GradientSignals

RATE_FACTOR = "learning_rate_factor"
"""Dimension that all arms share: factor of every learning rate of the student."""

WEIGHT_RANGE = 10.0
"""A weight is searched from a tenth to ten times its default, or further."""

OPTION_RANGE = 4.0
"""A positive option without an upper bound is searched from a quarter to four times its default."""

MARGIN = 0.01
"""Part of a bounded interval that is left out at an end that the option excludes."""

FIXED = {
    "seed",
    "multi_label",
    "epsilon",
    "size",
    "memory",
    "vocabulary",
    "calibration_samples",
    "num_samples",
}
"""Options that set numerical guards or memory, not the method."""


@dataclass(frozen=True)
class Dimension:
    """One value of a recipe that is searched.

    Attributes:
        path: path in the recipe, or ``RATE_FACTOR``.
        default: published value, or the value of the recipe.
        low: smallest value of a number.
        high: largest value of a number.
        is_log: whether numbers are sampled on a logarithmic scale.
        choices: values of a categorical dimension; empty for a number.
        published: published weight, which is the first suggestion. None: unknown, or the default.
    """

    path: str
    default: Any
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False
    choices: tuple[Any, ...] = ()
    published: float | None = None

    def __contains__(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        return bool(self.low <= value <= self.high)

    def distribution(self) -> Any:
        """Return the distribution of Optuna."""
        from optuna import distributions

        if self.choices:
            return distributions.CategoricalDistribution(self.choices)
        if isinstance(self.default, int):
            return distributions.IntDistribution(int(self.low), int(self.high), log=self.is_log)
        return distributions.FloatDistribution(self.low, self.high, log=self.is_log)

    def rounded(self, value: Any) -> Any:
        """Round a sampled number to three significant digits inside the bounds."""
        if self.choices or isinstance(self.default, int) or not value:
            return value
        digits = 2 - floor(log10(abs(value)))
        return min(max(round(value, digits), self.low), self.high)


def learning_rate_factor() -> Dimension:
    """Return the dimension of the learning rate."""
    return Dimension(RATE_FACTOR, 1.0, 1 / OPTION_RANGE, OPTION_RANGE, is_log=True)


def balanced_weight(signals: GradientSignals | None) -> float | None:
    """Return the weight with which a loss has the gradient norm of the label losses.

    Args:
        signals: signals of the loss with the weight 1.

    Returns:
        Weight with two significant digits; None if it is unknown.

    Example:
        >>> balanced_weight(GradientSignals(norm_ratio=28.0, cosine=0.1, num_batches=3))
        0.036
    """
    if signals is None or not signals.norm_ratio:
        return None
    weight = 1 / signals.norm_ratio
    return round(weight, 1 - floor(log10(weight)))


def weight_dimension(
    path: str, weight: float, balanced: float | None = None, published: float | None = None
) -> Dimension:
    """Return the dimension of a positive weight around its default.

    Args:
        path: recipe path.
        weight: default value.
        balanced: weight with which the gradient has the norm of that of the label losses, and
            which the range includes. None: unknown.
        published: published weight, which the range includes. None: unknown.
    """
    weights = (weight / WEIGHT_RANGE, weight * WEIGHT_RANGE, balanced, published)
    ends = [end for end in weights if end is not None]
    published = None if published == weight else published
    return Dimension(path, weight, min(ends), max(ends), is_log=True, published=published)


def method_space(
    kind: str, name: str, prefix: str, values: Mapping[str, Any]
) -> tuple[Dimension, ...]:
    """Return the dimensions of the options of a method.

    Args:
        kind: kind in the catalogue, ``objective`` or ``scheme``.
        name: name in the catalogue.
        prefix: recipe path of the method's section.
        values: options that the recipe sets; the others have the published defaults.
    """
    dimensions = []
    for option, parameter in parameters(catalogue.find(kind, name)).items():
        default = values.get(option, parameter.default)
        if option in FIXED:
            continue
        dimension = _dimension(f"{prefix}.{option}", parameter.annotation, default)
        if dimension is not None:
            dimensions.append(dimension)
    return tuple(dimensions)


def _dimension(path: str, annotation: Any, default: Any) -> Dimension | None:
    """Return the dimension of an option; None for an option that is not searched."""
    origin = get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        # Of ``float | Schedule`` or ``Literal | list`` the first part that fits the default.
        parts = (part for part in get_args(annotation) if part not in (Schedule, type(None)))
        dimensions = (_dimension(path, part, default) for part in parts)
        return next((dimension for dimension in dimensions if dimension is not None), None)
    bounds: tuple[Any, ...] = ()
    while get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
        bounds += tuple(metadata)
    if annotation is bool and isinstance(default, bool):
        return Dimension(path, default, choices=(default, not default))
    if get_origin(annotation) is Literal and default in get_args(annotation):
        choices = get_args(annotation)
        return Dimension(path, default, choices=choices) if len(choices) > 1 else None
    # A bool is an int, and may be the default of a union.
    if isinstance(default, bool) or not isinstance(default, (int, float)):
        return None
    if annotation is int and isinstance(default, int):
        return _integer(path, default, bounds)
    return _real(path, float(default), bounds) if annotation is float else None


def _integer(path: str, default: int, bounds: tuple[Any, ...]) -> Dimension | None:
    low, high = default // 2, 2 * default
    for bound in bounds:
        low = max(low, getattr(bound, "ge", low), getattr(bound, "gt", low - 1) + 1)
        high = min(high, getattr(bound, "le", high), getattr(bound, "lt", high + 1) - 1)
    if default <= 0 or low >= high:
        return None
    return Dimension(path, default, low, high)


def _real(path: str, default: float, bounds: tuple[Any, ...]) -> Dimension | None:
    """Return a share with a uniform scale, or a positive number with a logarithmic one."""
    low, high = _ends(bounds)
    if low is not None and high is not None:
        return Dimension(path, default, min(low, default), max(high, default))
    if default <= 0:
        return None
    start, end = default / OPTION_RANGE, default * OPTION_RANGE
    start = start if low is None else max(start, low)
    end = end if high is None else min(end, high)
    return Dimension(path, default, start, end, is_log=True)


def _ends(bounds: tuple[Any, ...]) -> tuple[float | None, float | None]:
    """Return the smallest and the largest value that bounds allow; None without a bound."""
    low: float | None = None
    high: float | None = None
    for bound in bounds:
        low = getattr(bound, "ge", getattr(bound, "gt", low))
        high = getattr(bound, "le", getattr(bound, "lt", high))
    if low is None or high is None:
        return low, high
    margin = MARGIN * (high - low)
    excludes_low = any(hasattr(bound, "gt") for bound in bounds)
    excludes_high = any(hasattr(bound, "lt") for bound in bounds)
    return low + margin * excludes_low, high - margin * excludes_high
