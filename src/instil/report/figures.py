"""Plots of a page as figures: pictures inside the page, or frames that plotly fills."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from instil.report.legend import legend
from instil.report.plots import Plot
from instil.report.svg import draw_svg

FULL_WIDTH = 980
"""Width in CSS pixels of a plot on a wide screen."""
HALF_WIDTH = 470
"""Width of one of two plots in a row."""
NARROW_WIDTH = 330
"""Width of a plot on a phone."""
HALF_WIDTH_PLOTS = ("agreement", "shares", "calibration", "confusion")


class Figures:
    """Collection of the plots of a page.

    Args:
        is_interactive: draw with plotly; by default plots are SVG inside the page.
    """

    def __init__(self, is_interactive: bool = False):
        self.is_interactive = is_interactive
        self.plots: list[Plot] = []

    def add(self, plot: Plot | str) -> str:
        """Return a plot with title, legend and caption, or the sentence that explains its absence.

        Args:
            plot: plot, or a sentence.

        Returns:
            HTML.
        """
        if isinstance(plot, str):
            return f'<p class="absent">{escape(plot)}</p>'
        self.plots.append(plot)
        drawing = _frame(plot) if self.is_interactive else _pictures(plot)
        return (
            f'<figure class="{plot.key}"><h3>{escape(plot.title)}</h3>{legend(plot)}{drawing}'
            f"<figcaption>{escape(plot.caption)}</figcaption></figure>"
        )

    def scripts(self) -> str:
        """Scripts that draw the plots; empty without plotly."""
        if not self.is_interactive:
            return ""
        from plotly.offline import get_plotlyjs  # type: ignore[import-untyped, unused-ignore]

        plots = [{"key": plot.key, "data": plot.data, "layout": plot.layout} for plot in self.plots]
        template = page_template("interactive.html")
        return template.substitute(plots=script_json(plots), plotly=get_plotlyjs())


def page_template(name: str) -> Template:
    """Template from a file of this package."""
    return Template(files("instil.report").joinpath(name).read_text("utf-8"))


def page_style() -> str:
    """Style element of the report of a run, for other pages."""
    _, _, rest = page_template("page.html").template.partition("<style>")
    style, _, _ = rest.partition("</style>")
    return f"<style>{style}</style>"


def script_json(value: Any) -> str:
    """JSON for a script element.

    No character of it can end the element or open a comment.
    """
    text = json.dumps(_finite_json(value), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite_json(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by None."""
    if isinstance(value, dict):
        return {key: _finite_json(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite_json(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _frame(plot: Plot) -> str:
    """Empty frame, which plotly fills."""
    label = f'role="img" aria-label="{escape(plot.summary)}"'
    return f'<div class="plot" id="plot-{plot.key}" {label} style="height:{plot.height}px"></div>'


def _pictures(plot: Plot) -> str:
    """Plot drawn for wide and for narrow screens; the style sheet shows one of them."""
    is_half_width = plot.is_half_width or plot.key in HALF_WIDTH_PLOTS
    wide = draw_svg(plot, HALF_WIDTH if is_half_width else FULL_WIDTH)
    narrow = draw_svg(plot, NARROW_WIDTH)
    return (
        f'<div class="plot" role="img" aria-label="{escape(plot.summary)}">'
        f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div></div>'
    )
