"""A run folder as one static page: did it work, what did it cost, can it be trusted."""

from __future__ import annotations

import json
import math
import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from instil.files.atomic import atomic
from instil.report import curves, evidence, mistakes, plots, quality, svg, tables, text, trust
from instil.report.continuations import continuations
from instil.report.legend import legend
from instil.report.plots import Plot
from instil.report.record import Record, read_run

Draw = Callable[[Plot], str]
FULL_WIDTH, HALF_WIDTH, NARROW_WIDTH = 980, 470, 330
"""Widths of the plots in CSS pixels: on a desk, beside another one, and on a phone."""
BESIDE_ANOTHER = ("agreement", "shares", "calibration", "confusion")


def write_report(run: str | Path, interactive: bool = False, status: str | None = None) -> Path:
    """Write ``report.html`` into the run folder, from nothing but that folder; it needs no network.

    Args:
        run: the run folder.
        interactive: draw the plots with plotly, which adds 5 MB to the page; by default they are
            pictures inside the page.
        status: that of a run whose ``result.json`` gets it only when the page is there.

    Returns:
        The path of the page.

    Raises:
        ValueError: if ``run`` is no run folder or its result cannot be read. Other missing files
            are named on the page.
    """
    record = read_run(run)
    if status is not None:
        record.result["status"] = status
    page = render(record, interactive)
    with atomic(record.folder / "report.html") as temporary:
        temporary.write_text(page, "utf-8")
    return record.folder / "report.html"


def render(record: Record, interactive: bool = False) -> str:
    """The whole page as HTML."""
    drawn: list[Plot] = []
    draw = _frame if interactive else _pictures_of
    parts = {
        **_opening(record),
        **_work(record, drawn, draw),
        **_cost(record, drawn, draw),
        **_trust(record, drawn, draw),
        **_measured(record),
    }
    return _template("page.html").substitute(
        parts,
        scripts=_scripts(drawn) if interactive else "",
        script_policy="'unsafe-inline'" if interactive else "'none'",
    )


def _template(name: str) -> Template:
    return Template(files("instil.report").joinpath(name).read_text("utf-8"))


def _scripts(drawn: Sequence[Plot]) -> str:
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped, unused-ignore]

    specs = _json([_spec(plot) for plot in drawn])
    return _template("interactive.html").substitute(plots=specs, plotly=get_plotlyjs())


def _opening(record: Record) -> dict[str, str]:
    found = evidence.verdict(record)
    data_name = str(record.at("data", "name") or "")
    name = str(record.at("name") or data_name or record.folder.resolve().name)
    about = [
        name,
        data_name if data_name != name else "",
        str(record.at("task") or ""),
        f"{record.at('scheme') or ''} distillation".strip(),
    ]
    return {
        "title": escape(f"{name}: {found.badge.lower()} · instil"),
        "about": " · ".join(escape(part) for part in about if part),
        "tone": found.tone,
        "verdict": escape(found.badge),
        "headline": _aside(escape(text.headline_sentence(record))),
        "baselines": _paragraph(text.baseline_sentences(record)),
        "figures": "".join(
            f"<div><dt>{escape(term)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
            for term, value, note in _figures(record)
        ),
        "warnings": _warnings(record),
    }


def _figures(record: Record) -> list[tuple[str, str, str]]:
    """The few numbers a reader takes away: term, value and note."""
    figures = []
    gain = record.number("gain", "mean")
    if gain is not None:
        unit = "points of " if record.fraction else ""
        note = f"{unit}{text.display_name(record.metric)} over the student alone"
        figures.append(("Gain", text.points(gain, record.fraction), note))
    sizes = [record.number("cost", side, "parameters") for side in ("teacher", "student")]
    figures += _ratio("Smaller", "Larger", sizes, text.count, ("", " parameters"))
    exported = record.number("export", "onnx", "latency", "median_ms")
    runtimes = (" in PyTorch", " as the ONNX file") if exported else ("", "")
    teacher = record.number("cost", "teacher", "latency", "median_ms")
    student = exported or record.number("cost", "student", "latency", "median_ms")
    figures += _ratio("Faster", "Slower", [teacher, student], text.milliseconds, runtimes)
    agreement = record.number("distilled", "agreement", "mean")
    if agreement is not None:
        note = "of test samples get the teacher’s answer"
        figures.append(("Agreement", text.amount(agreement), note))
    return figures


def _ratio(
    less: str,
    more: str,
    values: Sequence[float | None],
    words: Callable[[float | None], str],
    notes: tuple[str, str],
) -> list[tuple[str, str, str]]:
    """How many times the student is below the teacher; nothing where one value is unknown."""
    teacher, student = values
    if not teacher or not student:
        return []
    ratio = teacher / student
    term = less if ratio >= 1 else more
    note = f"{words(teacher)}{notes[0]} to {words(student)}{notes[1]}"
    return [(term, text.times(max(ratio, 1 / ratio)), note)]


def _warnings(record: Record) -> str:
    given = record.at("warnings")
    said = [str(warning) for warning in given] if isinstance(given, list) else []
    status = record.at("status")
    if status not in (None, "complete"):
        words = {"running": "is still running", "failed": "failed"}.get(
            str(status), f"was {status}"
        )
        said.insert(0, f"This run {words}: the numbers below are what there is so far.")
    said += record.unread
    if not said:
        return ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in said)
    return f'<aside class="warnings" aria-label="Warnings"><h2>Read this first</h2><ul>{lines}</ul></aside>'


def _work(record: Record, drawn: list[Plot], draw: Draw) -> dict[str, str]:
    metric = record.metric
    curve = curves.metric_plot(record, metric, "curves", "Learning curves")
    figures = {
        "gains": _figure(plots.gain_plot(record), drawn, draw),
        "curves": _figure(curve, drawn, draw),
    }
    return {"arms": tables.arms_table(record), **figures, "continuations": continuations(record)}


def _cost(record: Record, drawn: list[Plot], draw: Draw) -> dict[str, str]:
    exported = ""
    if record.at("exports") is False:
        exported = "<p>A student of this task has no ONNX form.</p>"
    elif not record.at("export", "onnx"):
        exported = "<p>The student was not exported to ONNX; <code>instil export</code> does it and measures it.</p>"
    return {
        "cost": tables.cost_table(record) + exported,
        "trade": _figure(plots.speed_quality_plot(record), drawn, draw),
    }


def _trust(record: Record, drawn: list[Plot], draw: Draw) -> dict[str, str]:
    agreement = curves.metric_plot(record, "agreement", "agreement", "Agreement with the teacher")
    marks = {"good": "Speaks for it", "open": "Take care"}
    items = (
        f'<li class="{tone}"><span class="mark" role="img" aria-label="{marks[tone]}"></span>{escape(said)}</li>'
        for tone, said in trust.trust_checks(record)
    )
    return {
        "checks": f'<ul class="checks">{"".join(items)}</ul>',
        "seeds": tables.seeds_table(record),
        "calibration": _figure(quality.calibration_plot(record), drawn, draw),
        "shares": _figure(curves.loss_shares_plot(record), drawn, draw),
        "agreement": _figure(agreement, drawn, draw),
        "confusion": _figure(quality.confusion_plot(record), drawn, draw),
        "mistakes": mistakes.mistake_examples(record),
        "by_class": mistakes.class_accuracy_table(record),
    }


def _measured(record: Record) -> dict[str, str]:
    recipe = (
        f"<pre tabindex=0><code>{escape(record.recipe)}</code></pre>"
        if record.recipe
        else "<p>The recipe is missing from the run folder.</p>"
    )
    return {
        "files": _files(record),
        "measured": tables.term_list(
            [*trust.measurement_terms(record), *tables.environment_terms(record)]
        ),
        "pictures": _pictures(record),
        "recipe": recipe,
    }


FILES = {
    "student.safetensors": "the student’s weights",
    "student.onnx": "the student for ONNX runtimes",
    "student.int8.onnx": "the same with 8-bit weights",
    "student.gguf": "the student for llama.cpp",
    "recipe.yaml": "repeat the run with it",
    "result.json": "all numbers of this page",
    "metrics.jsonl": "every record of the trainings",
    "environment.json": "versions and hardware",
}


def _files(record: Record) -> str:
    """Links to the files beside the page."""
    present = [(name, use) for name, use in FILES.items() if (record.folder / name).is_file()]
    items = "".join(f'<li><a href="{name}">{name}</a>, {use}</li>' for name, use in present)
    return f"<h3>Files beside this page</h3><ul>{items}</ul>" if items else ""


def _pictures(record: Record) -> str:
    """What the shipped student learnt from, where that was not the data."""
    if not record.pictures:
        return ""
    image = f'<img src="data:image/png;base64,{b64encode(record.pictures).decode()}" alt="Made or borrowed images in rows of eight">'
    said = "Some of the images that the shipped student learnt from; it saw none of the training images."
    return f"<figure><h3>What the student learnt from</h3>{image}<figcaption>{said}</figcaption></figure>"


def _paragraph(sentences: Iterable[str]) -> str:
    joined = " ".join(sentences)
    return f"<p>{escape(joined)}</p>" if joined else ""


def _aside(escaped: str) -> str:
    """What stands in brackets, in a lighter hand."""
    return re.sub(r"\([^()]*\)", lambda found: f'<span class="aside">{found[0]}</span>', escaped)


def _figure(plot: Plot | str, drawn: list[Plot], draw: Draw) -> str:
    """A plot with title, legend and caption, or the sentence that says why there is none."""
    if isinstance(plot, str):
        return f'<p class="absent">{escape(plot)}</p>'
    drawn.append(plot)
    title, caption = escape(plot.title), escape(plot.caption)
    return (
        f'<figure class="{plot.key}"><h3>{title}</h3>{legend(plot)}{draw(plot)}'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _frame(plot: Plot) -> str:
    """An empty frame in which plotly draws."""
    style = f"height:{plot.height}px"
    return f'<div class="plot" id="plot-{plot.key}" role="img" aria-label="{escape(plot.summary)}" style="{style}"></div>'


def _pictures_of(plot: Plot) -> str:
    """The plot drawn twice, for wide and for narrow screens; the style sheet shows one of them."""
    width = HALF_WIDTH if plot.key in BESIDE_ANOTHER else FULL_WIDTH
    wide, narrow = svg.draw_svg(plot, width), svg.draw_svg(plot, NARROW_WIDTH)
    return (
        f'<div class="plot" role="img" aria-label="{escape(plot.summary)}">'
        f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div></div>'
    )


def _spec(plot: Plot) -> dict[str, Any]:
    return {"key": plot.key, "data": plot.data, "layout": plot.layout}


def _json(value: Any) -> str:
    """JSON that may stand inside a script element: no character of it can end the element or open a comment."""
    text = json.dumps(_strict(value), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _strict(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, dict):
        return {key: _strict(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
