"""Plot of the gains of the distilled student with their confidence intervals."""

from __future__ import annotations

from typing import Any

from instil.report.names import display_name
from instil.report.plots import Plot, arm_color, plotly_text
from instil.report.quantities import points
from instil.report.record import Record

Gain = tuple[str, float, tuple[float, float], bool]
"""Arm, mean gain over it, ends of the interval, and whether the gain is significant."""


def gain_plot(record: Record) -> Plot | str:
    """Gain of the distilled student over each baseline, with its confidence interval.

    Returns:
        The plot, or a sentence that explains why there is none.
    """
    gains = _gains_with_interval(record)
    if not gains:
        return (
            "A gain needs a student alone, and its interval needs several seeds. This run has no "
            "interval to draw."
        )
    unit = "percentage points" if record.is_fraction else display_name(record.metric)
    if record.lower_is_better:
        unit = f"reduction of {unit}"
    layout = {
        "xaxis": {"title": {"text": unit}, "rangemode": "tozero", "zeroline": True},
        "yaxis": {"autorange": "reversed", "automargin": True, "showgrid": False},
        "accent": "zero",
    }
    texts = [
        f"over {record.arm_name(arm).lower()}: {_text(record, mean, ends)}"
        for arm, mean, ends, _ in gains
    ]
    return Plot(
        "gains",
        "Gain of the distilled student over …",
        "A filled mark is a significant difference: it is larger than the noise between seeds. "
        "A hollow mark is a difference within the noise.",
        f"Gain of the distilled student {'; '.join(texts)}.",
        [_trace(record, *gain) for gain in gains],
        layout,
        90 + 44 * len(gains),
    )


def _gains_with_interval(record: Record) -> list[Gain]:
    paths = {"alone": ("gain",), **{arm: ("gains", arm) for arm in record.get_dict("gains")}}
    gains: list[Gain] = []
    for arm, path in paths.items():
        mean = record.get_number(*path, "mean")
        interval = record.get_interval(*path)
        if mean is not None and interval is not None:
            # Equal differences have an interval without zero, and need not be significant.
            is_significant = record.get(*path, "significant") is True
            gains.append((arm, mean, interval, is_significant))
    return gains


def _trace(
    record: Record, arm: str, mean: float, ends: tuple[float, float], is_significant: bool
) -> dict[str, Any]:
    color = arm_color("distilled")
    scale = 100 if record.is_fraction else 1
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [mean * scale],
        "y": [f"{plotly_text(record.arm_name(arm).lower())} "],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [(ends[1] - mean) * scale],
            "arrayminus": [(mean - ends[0]) * scale],
            "color": color,
            "thickness": 2.5,
            "width": 7,
        },
        "marker": {
            "size": 13,
            "color": color,
            "symbol": "circle" if is_significant else "circle-open",
            "line": {"width": 2, "color": color},
        },
        "hovertemplate": f"{plotly_text(_text(record, mean, ends))}<extra></extra>",
        "showlegend": False,
    }


def _text(record: Record, mean: float, ends: tuple[float, float]) -> str:
    parts = [points(value, record.is_fraction, sign=False) for value in (mean, *ends)]
    return f"{parts[0]} ({parts[1]} to {parts[2]})"
