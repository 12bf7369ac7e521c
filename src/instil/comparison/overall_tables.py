"""HTML tables of the comparison over settings."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from instil.comparison.labels import method_label
from instil.comparison.overall import Overall
from instil.comparison.tables import cell, sortable_table
from instil.report.names import display_name
from instil.report.quantities import MISSING, points


def overall_tables(overall: Overall) -> str:
    """Return the table of methods, the compared settings, and notes on results left out."""
    header = ["Method"]
    header += ["Average rank", "p, Wilcoxon against the first"]
    for reference in overall.improvements:
        name = display_name(reference).lower()
        header += [f"Mean gain over {name}", f"Probability of improvement over {name}"]
    rows = [_row(overall, index) for index in range(len(overall.methods))]
    caption = (
        f"{len(overall.blocks)} settings. Gains in points, over settings whose metric is a share. "
        "95 % intervals of a bootstrap over the seeds of each setting; p-values corrected by "
        "Holm's method."
    )
    blocks = "".join(f"<li>{escape(block.title)}</li>" for block in overall.blocks)
    notes = "".join(f"<li>{escape(note)}</li>" for note in overall.notes)
    left_out = f"<h3>Left out</h3><ul>{notes}</ul>" if notes else ""
    return (
        f"{sortable_table(caption, header, rows)}<p>The tests take the settings as independent. "
        "Settings that share data are not; compare one run for each data set for a claim.</p>"
        f"<details><summary>Compared settings</summary><ul>{blocks}</ul>{left_out}</details>"
    )


def _row(overall: Overall, index: int) -> list[str]:
    method = overall.methods[index]
    rank = overall.mean_ranks[index]
    p = overall.wilcoxon[index]
    cells = [cell(method_label(method), key=method), cell(f"{rank:.2f}", key=rank)]
    cells.append(cell(MISSING if p is None else f"{p:.2g}", key="" if p is None else p))
    for reference, improvements in overall.improvements.items():
        cells.append(_gain(overall.gains.get(reference, {}).get(method)))
        cells.append(_probability(improvements.get(method)))
    return cells


def _gain(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None:
        return cell(MISSING, key="")
    ends = estimate["interval"]
    note = f"{points(ends[0])} to {points(ends[1])}" if ends else ""
    return cell(points(estimate["mean"]), key=estimate["mean"], note=note)


def _probability(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None:
        return cell(MISSING, key="")
    ends = estimate["interval"]
    note = f"{ends[0]:.2f} to {ends[1]:.2f}" if ends else ""
    return cell(f"{estimate['probability']:.2f}", key=estimate["probability"], note=note)
