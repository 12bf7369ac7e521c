"""Plots of the comparison over settings: critical difference and performance profile."""

from __future__ import annotations

from typing import Any

from instil.comparison.labels import SHOWN, colors, method_label
from instil.comparison.overall import FACTORS, Overall
from instil.report.names import enumeration
from instil.report.plots import Plot, plotly_text


def rank_plot(overall: Overall) -> Plot | str:
    """Return the critical-difference diagram, or a sentence if there is no rank test.

    Bars of half a critical difference overlap exactly if the Nemenyi test does not separate two
    methods.
    """
    ranks = overall.ranks
    if ranks is None:
        return "Average ranks with a critical difference need three or more methods."
    half = ranks.critical_difference / 2
    data = []
    for name, rank, color in zip(
        overall.methods, ranks.mean_ranks, colors(overall.methods), strict=True
    ):
        bars = {"type": "data", "array": [half], "color": color, "thickness": 3, "width": 6}
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [rank],
                "y": [f"{plotly_text(method_label(name))} "],
                "error_x": bars,
                "marker": {"size": 12, "color": color, "symbol": "circle"},
                "showlegend": False,
            }
        )
    texts = [
        f"{name} {rank:.2f}" for name, rank in zip(overall.methods, ranks.mean_ranks, strict=True)
    ]
    groups = [
        enumeration([method_label(overall.methods[index]) for index in group])
        for group in ranks.groups
    ]
    separated = f"Not separated: {'; '.join(groups)}." if groups else "All methods are separated."
    caption = (
        f"Average rank over {ranks.num_tasks} settings; 1 is the best. Methods whose bars do not "
        f"overlap differ by more than the critical difference {ranks.critical_difference:.2f} "
        f"(Nemenyi, 5 %). Friedman test for equal methods: p = {ranks.p:.2g}. {separated}"
    )
    layout = {
        "xaxis": {"title": {"text": "average rank"}},
        "yaxis": {"autorange": "reversed", "automargin": True, "showgrid": False},
    }
    summary = f"Average ranks: {', '.join(texts)}."
    height = 80 + 30 * len(data)
    return Plot("ranks", "Critical-difference diagram", caption, summary, data, layout, height)


def profile_plot(overall: Overall) -> Plot | str:
    """Return the performance profile, or a sentence if no metric has a cost."""
    if overall.profile is None:
        return "A performance profile needs metrics that are errors, or shares below 1."
    data: list[dict[str, Any]] = []
    starts = []
    shown = list(overall.methods[:SHOWN])
    for index, (name, color) in enumerate(zip(shown, colors(shown), strict=True)):
        starts.append(f"{name} {overall.profile[index][0]:.0%}")
        data.append(_line(overall.profile[index].tolist(), color, plotly_text(method_label(name))))
        if overall.band is not None:
            for end in overall.band:
                data.append(_line(end[index].tolist(), color))
    caption = (
        "Share of settings on which the error of a method is at most a factor times the lowest "
        "error. At factor 1 it is the share of settings that the method wins."
    )
    if overall.band is not None:
        caption += " Thin lines: 95 % intervals of a bootstrap over the seeds of each setting."
    layout = {
        "xaxis": {
            "title": {"text": "factor of the lowest error"},
            "range": [1, float(FACTORS[-1])],
        },
        "yaxis": {"title": {"text": "share of settings"}, "tickformat": ".0%", "range": [0, 1.02]},
    }
    summary = f"Share of settings with the lowest error: {', '.join(starts)}."
    return Plot("profile", "Performance profile", caption, summary, data, layout)


def _line(shares: list[float], color: str, name: str = "") -> dict[str, Any]:
    """Return a line of the profile; without a name, a thin line that bounds its interval."""
    trace = {
        "type": "scatter",
        "mode": "lines",
        "x": FACTORS.tolist(),
        "y": shares,
        "line": {"color": color, "width": 2.5 if name else 1, "dash": "" if name else "dot"},
        "hoverinfo": "skip",
    }
    return trace | ({"name": name} if name else {"showlegend": False, "opacity": 0.6})
