"""Head of the page: verdict, result in one sentence, key figures and warnings."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape

from instil.report.convergence import convergence_sentence
from instil.report.evidence import verdict
from instil.report.headline import baseline_sentences, exported_sentence, headline_sentence
from instil.report.names import display_name
from instil.report.quantities import amount, count, factor, milliseconds, points, size
from instil.report.record import Record

Figure = tuple[str, str, str]
"""Term, value and note."""


def opening(record: Record) -> dict[str, str]:
    """Parts of the page template above the sections, as HTML."""
    judgement = verdict(record)
    data_name = str(record.get("data", "name") or "")
    name = str(record.get("name") or data_name or record.folder.resolve().name)
    facts = [
        name,
        data_name if data_name != name else "",
        str(record.get("task") or ""),
        f"{record.get('scheme') or ''} distillation".strip(),
    ]
    sentences = [*baseline_sentences(record), exported_sentence(record)]
    baselines = escape(" ".join(sentence for sentence in sentences if sentence))
    return {
        "title": escape(f"{name}: {judgement.badge.lower()} · instil"),
        "about": " · ".join(escape(fact) for fact in facts if fact),
        "tone": judgement.tone,
        "verdict": escape(judgement.badge),
        "headline": _dim_brackets(escape(headline_sentence(record))),
        "baselines": f"<p>{baselines}</p>" if baselines else "",
        "figures": "".join(_figure_item(figure) for figure in _key_figures(record)),
        "warnings": _warnings(record),
    }


def _dim_brackets(html: str) -> str:
    """Show the text in brackets in a lighter colour."""
    return re.sub(r"(\([^()]*\))", r'<span class="aside">\1</span>', html)


def _figure_item(figure: Figure) -> str:
    term, value, note = (escape(part) for part in figure)
    return f"<div><dt>{term}</dt><dd>{value}<small>{note}</small></dd></div>"


def _key_figures(record: Record) -> list[Figure]:
    figures: list[Figure] = []
    gain = record.get_number("gain", "mean")
    if gain is not None:
        unit = "points of " if record.is_fraction else ""
        note = f"{unit}{display_name(record.metric)} over the student alone"
        figures.append(("Gain", points(gain, record.is_fraction), note))
    figures += _size_figure(record)
    figures += _speed_figure(record)
    agreement = record.mean("distilled", "agreement")
    if agreement is not None:
        note = "of test samples get the prediction of the teacher"
        figures.append(("Agreement", amount(agreement), note))
    return figures


def _size_figure(record: Record) -> list[Figure]:
    teacher = record.get_number("cost", "teacher", "parameters")
    student = record.get_number("cost", "student", "parameters")
    if teacher == 0 or student == 0:
        # An estimator has no parameters, only a size.
        teacher = record.get_number("cost", "teacher", "bytes")
        student = record.get_number("cost", "student", "bytes")
        return _comparison(("Smaller", "Larger"), (teacher, student), size, ("", ""))
    notes = ("", " parameters")
    return _comparison(("Smaller", "Larger"), (teacher, student), count, notes)


def _speed_figure(record: Record) -> list[Figure]:
    """Latency of the student, as the ONNX file if there is one."""
    teacher = record.get_number("cost", "teacher", "latency", "median_ms")
    student = record.get_number("cost", "student", "latency", "median_ms")
    exported = record.get_number("export", "onnx", "latency", "median_ms")
    notes = (" in PyTorch", " as the ONNX file") if exported else ("", "")
    values = (teacher, exported or student)
    return _comparison(("Faster", "Slower"), values, milliseconds, notes)


def _comparison(
    terms: tuple[str, str],
    values: tuple[float | None, float | None],
    text_of: Callable[[float | None], str],
    notes: tuple[str, str],
) -> list[Figure]:
    """Ratio of a cost of teacher and student; empty if one of them is unknown."""
    teacher, student = values
    if not teacher or not student:
        return []
    ratio = teacher / student
    term = terms[0] if ratio >= 1 else terms[1]
    note = f"{text_of(teacher)}{notes[0]} to {text_of(student)}{notes[1]}"
    return [(term, factor(max(ratio, 1 / ratio)), note)]


def _warnings(record: Record) -> str:
    lines = [str(warning) for warning in record.get_list("warnings")]
    status = record.get("status")
    if status not in (None, "complete"):
        states = {"running": "is still running", "failed": "failed"}
        state = states.get(str(status), f"was {status}")
        lines.insert(0, f"This run {state}: the numbers below are preliminary.")
    if sentence := convergence_sentence(record):
        lines.append(f"{sentence}.")
    lines += record.unread
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return (
        f'<aside class="warnings" aria-label="Warnings"><h2>Warnings</h2><ul>{items}</ul></aside>'
    )
