"""HTML tables whose rows can be sorted and filtered."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from instil.comparison.evidence import PairedEvidence, paired_evidence
from instil.comparison.labels import (
    colors,
    difference_text,
    interval_text,
    method_label,
    score_text,
)
from instil.comparison.reported import ReportedBenchmark
from instil.comparison.results import Setting, SettingGroup, TrainedResult
from instil.report.names import display_name
from instil.report.quantities import MISSING, count, milliseconds, size
from instil.search.evidence import COMPARED

Selection = tuple[ReportedBenchmark, str | None]


def sortable_table(
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    attributes: Sequence[Mapping[str, str]] = (),
) -> str:
    """Return a table whose columns are sorted by a click on their titles.

    Args:
        caption: caption, also the label of the scrolling region.
        header: titles of the columns.
        rows: cells as HTML from ``cell``; the first cell of a row is its header.
        attributes: ``data-`` attributes of each row, which the filters read.
    """
    titles = "".join(
        f'<th scope="col"><button type="button">{escape(title)}</button></th>' for title in header
    )
    body = []
    for index, (first, *others) in enumerate(rows):
        pairs = attributes[index].items() if attributes else ()
        data = "".join(f' data-{key}="{escape(value)}"' for key, value in pairs)
        body.append(f'<tr{data}><th scope="row" {first}</th>')
        body += [f"<td {content}</td>" for content in others]
        body.append("</tr>")
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">'
        f'<table class="sortable"><caption>{escape(caption)}</caption><thead><tr>{titles}</tr>'
        f"</thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def cell(text: str, key: float | str | None = None, note: str = "", is_html: bool = False) -> str:
    """Return the inside of a cell with its sort key.

    Args:
        text: content.
        key: value by which the column is sorted. None: the text.
        note: text in smaller type.
        is_html: the content is HTML already.
    """
    content = text if is_html else escape(text)
    small = f"<small>{escape(note)}</small>" if note else ""
    return f'data-key="{escape(str(text if key is None else key))}">{content}{small}'


def group_table(group: SettingGroup, folder: Path, selection: Selection | None) -> str:
    """Return the table of the results of one setting.

    Args:
        group: results of one setting.
        folder: folder of the page, for links.
        selection: reported benchmark and pair, shown in a column of its own.
    """
    evidence = paired_evidence(group)
    methods = {row.method for row in group.results}
    references = [name for name in COMPARED if name in methods]
    has_reported = _has_column(group.setting, selection)
    header = ["Method", f"Test {display_name(group.setting.metric)}"]
    header += [f"Gain over {display_name(name).lower()}" for name in references]
    header += ["Not separated from the best"]
    header += ["Reported in papers"] if has_reported else []
    header += ["Parameters", "Size", "Latency", "Network", "Training", "Seeds"]
    header += ["Knowledge", "Scheme", "Algorithm", "Recipe"]
    rows = []
    palette = colors([row.method for row in group.results])
    for row, own, color in zip(group.results, evidence, palette, strict=True):
        cells = [_method_cell(row, color), _score_cell(group.setting, row)]
        cells += [_gain_cell(group.setting, own, name) for name in references]
        cells.append(cell({True: "yes", False: "no", None: MISSING}[own.is_best]))
        if has_reported and selection is not None:
            cells.append(_reported_cell(row, *selection))
        rows.append(cells + _fact_cells(row, folder))
    caption = f"Test scores of {len(group.results)} results"
    return sortable_table(caption, header, rows, [_filters(row) for row in group.results])


def _has_column(setting: Setting, selection: Selection | None) -> bool:
    return selection is not None and selection[1] is not None and selection[0].task == setting.task


def _method_cell(row: TrainedResult, color: str) -> str:
    dot = f'<span class="dot" style="background:{color}"></span>'
    name = method_label(row.method)
    return f'class="dotted" {cell(dot + escape(name), key=name, is_html=True)}'


def _score_cell(setting: Setting, row: TrainedResult) -> str:
    text = score_text(setting, row.mean)
    return cell(text, key=row.mean, note=interval_text(setting, row.interval))


def _gain_cell(setting: Setting, evidence: PairedEvidence, reference: str) -> str:
    gain = evidence.differences.get(reference)
    if gain is None:
        return cell(MISSING, key="")
    note = interval_text(setting, gain["interval"])
    p = "" if gain["p"] is None else f", p = {gain['p']:.2g}"
    return cell(difference_text(setting, gain["mean"]), key=gain["mean"], note=note + p)


def _reported_cell(row: TrainedResult, benchmark: ReportedBenchmark, pair: str | None) -> str:
    values = benchmark.values(row.method, pair or "")
    if not values:
        return cell(MISSING, key="")
    sources = [f"{value:g} {table.metric} ({table.source})" for value, table in values]
    return cell(f"{values[0][0]:g}", key=values[0][0], note="; ".join(sources))


def _fact_cells(row: TrainedResult, folder: Path) -> list[str]:
    page = row.folder / ("report.html" if row.origin == "run" else "search.html")
    links = [_link(row.folder / row.recipe, folder, row.folder.resolve().name)]
    if page.is_file():
        links.append(_link(page, folder, "report"))
    copies = f"and {len(row.copies)} more" if row.copies else ""
    return [
        cell(count(row.parameters), key=_key(row.parameters)),
        cell(size(row.num_bytes), key=_key(row.num_bytes)),
        cell(milliseconds(row.latency), key=_key(row.latency)),
        cell(row.student),
        cell(row.training),
        cell(", ".join(map(str, row.seeds))),
        cell(", ".join(row.axes.sources)),
        cell(", ".join(row.axes.schemes)),
        cell(", ".join(row.axes.algorithms)),
        cell(" · ".join(links), key=row.folder.name, note=copies, is_html=True),
    ]


def _link(path: Path, folder: Path, text: str) -> str:
    """Return a link to a file that works while the files keep their relative position."""
    target = quote(os.path.relpath(path, folder))
    return f'<a href="{target}">{escape(text)}</a>'


def _key(value: Any) -> Any:
    return "" if value is None else value


def _filters(row: TrainedResult) -> dict[str, str]:
    return {
        "role": row.kind,
        "source": " ".join(row.axes.sources),
        "scheme": " ".join(row.axes.schemes),
        "algorithm": " ".join(row.axes.algorithms),
        "origin": row.origin,
    }
