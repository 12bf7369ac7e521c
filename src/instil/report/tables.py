"""The run's numbers as HTML tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from instil.report import text
from instil.report.plots import arm_color
from instil.report.record import NUMBERS, SIDE, Record

Cell = str | tuple[str, str]
"""What stands in a cell, and with a second string a smaller note under it; both plain text."""


def table(
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    dots: Sequence[str] = (),
    strong: int = -1,
) -> str:
    """An accessible table that scrolls in itself where the screen is narrow; the first cell of a row is its header."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = ""
    for number, row in enumerate(rows):
        dot = f'<span class="dot" style="background:{dots[number]}"></span>' if dots else ""
        first, *rest = (_cell(cell) for cell in row)
        cells = "".join(f"<td>{cell}</td>" for cell in rest)
        body += f'<tr{" class=strong" if number == strong else ""}><th scope="row"{" class=dotted" if dots else ""}>{dot}{first}</th>{cells}</tr>'
    frame = f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">'
    return f"{frame}<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return escape(cell)
    beside = ' class="beside"' if cell[1].startswith(text.PLUS_MINUS) else ""
    return escape(cell[0]) + (f"<small{beside}>{escape(cell[1])}</small>" if cell[1] else "")


def arms_table(record: Record) -> str:
    """Every network's test metrics, and how far it is above the student alone."""
    if not record.arms:
        return "<p>No network has a test result yet.</p>"
    others = dict.fromkeys(
        name
        for arm in record.arms
        for name, value in record.result[arm].items()
        if isinstance(value, dict) and "mean" in value
    )
    shown = [
        name
        for name in ("agreement", "ece", *others)
        if name in others and name not in (record.metric, "loss")
    ]
    columns = list(dict.fromkeys(shown))
    titles = {"agreement": "Agrees with teacher", "ece": "Calibration error"}
    header = [
        "Network",
        text.display_name(record.metric).capitalize()
        if record.metric not in text.NAMES
        else _title(record.metric),
    ]
    if record.lower_is_better:
        header[-1] += " (lower is better)"
    header += [titles.get(name, _title(name)) for name in columns]
    header.append("Gain over the student alone")
    rows: list[list[Cell]] = []
    for arm in record.arms:
        cells: list[Cell] = [_title(arm), _value(record, arm, record.metric, record.fraction)]
        cells += [
            _value(record, arm, name, name not in NUMBERS and (record.fraction or name in SIDE))
            for name in columns
        ]
        rows.append([*cells, _over_alone(record, arm)])
    strong = record.arms.index("distilled") if "distilled" in record.arms else -1
    kind = (
        f"mean ± standard deviation over {len(record.seeds)} seeds"
        if len(record.seeds) > 1
        else "one seed"
    )
    return table(
        f"Test split, {kind}", header, rows, [arm_color(arm) for arm in record.arms], strong
    )


def _title(key: str) -> str:
    words = text.display_name(key)
    return words if words[:2] != words[:2].lower() else words[:1].upper() + words[1:]


def _value(record: Record, arm: str, metric: str, fraction: bool) -> Cell:
    mean = text.amount(record.number(arm, metric, "mean"), fraction)
    return mean, text.spread(
        record.number(arm, metric, "mean"), record.number(arm, metric, "std"), fraction
    ).removeprefix(mean)


def _over_alone(record: Record, arm: str) -> Cell:
    mine, alone = (
        record.number(arm, record.metric, "mean"),
        record.number("alone", record.metric, "mean"),
    )
    if arm == "alone" or mine is None or alone is None:
        return text.MISSING
    interval = record.interval("gain")
    if arm != "distilled" or interval is None:
        return text.points(record.improvement(mine, alone), record.fraction)
    ends = [text.points(end, record.fraction, sign=False) for end in interval]
    return text.points(record.number("gain", "mean"), record.fraction), f"{ends[0]} to {ends[1]}"


def seeds_table(record: Record) -> str:
    """The headline metric of every seed, and the gain of each pair; empty for one seed."""
    shown = [
        arm
        for arm in record.arms
        if len(record.values(arm, record.metric)) == len(record.seeds) and arm != "teacher"
    ]
    if len(record.seeds) < 2 or "distilled" not in shown:
        return ""
    rows: list[list[Cell]] = []
    for number, seed in enumerate(record.seeds):
        values = {arm: record.values(arm, record.metric)[number] for arm in shown}
        alone, distilled = values.get("alone"), values["distilled"]
        gain = None
        if alone is not None and distilled is not None:
            gain = record.improvement(distilled, alone)
        rows.append(
            [
                f"{seed}",
                *(text.amount(value, record.fraction) for value in values.values()),
                text.points(gain, record.fraction),
            ]
        )
    return table(
        f"Test {text.display_name(record.metric)} of every seed",
        ["Seed", *(_title(arm) for arm in shown), "Gain"],
        rows,
    )


def cost_table(record: Record) -> str:
    """Parameters, bytes, latency and time of teacher and student, and of the exported files."""
    places = [
        ("Teacher", ("cost", "teacher"), "teacher"),
        ("Student", ("cost", "student"), "distilled"),
        ("Student, ONNX", ("export", "onnx"), "distilled"),
        ("Student, ONNX int8", ("export", "int8"), "distilled"),
        ("Student, transformers", ("export", "transformers"), "distilled"),
        ("Student, GGUF", ("export", "gguf"), "distilled"),
    ]
    places = [place for place in places if isinstance(record.at(*place[1]), dict)]
    if not places:
        return "<p>The cost was not measured.</p>"
    how = [
        _how(record, place)
        for _, place, _ in places
        if record.number(*place, "latency", "median_ms") is not None
    ]
    shared = len(set(how)) == 1
    rows = [
        _cost_row(record, label, place, "" if shared else _how(record, place))
        for label, place, _ in places
    ]
    caption = f"Size, speed and training time{f'; latency is the median, {how[0]}' if shared else '; latency is the median'}"
    return table(
        caption,
        ["Network", "Parameters", "Size", "Latency", "Training"],
        rows,
        [arm_color(arm) for _, _, arm in places],
    )


def _how(record: Record, place: tuple[str, ...]) -> str:
    batch, threads = (record.number(*place, "latency", key) for key in ("batch_size", "threads"))
    parts = [f"batch size {batch:.0f}"] if batch is not None else []
    parts += [f"{threads:.0f} thread{'s' if threads != 1 else ''}"] if threads is not None else []
    return ", ".join(parts)


def _cost_row(record: Record, label: str, place: tuple[str, ...], how: str) -> list[Cell]:
    parameters = record.number(*place, "parameters") or (
        record.number("cost", "student", "parameters") if place[0] == "export" else None
    )
    p90 = record.number(*place, "latency", "p90_ms")
    notes = [f"90th percentile {text.milliseconds(p90)}" if p90 is not None else "", how]
    return [
        label,
        text.count(parameters),
        text.size(record.number(*place, "bytes")),
        (
            text.milliseconds(record.number(*place, "latency", "median_ms")),
            ", ".join(note for note in notes if note),
        ),
        text.duration(record.number(*place, "seconds")),
    ]


def term_list(pairs: Sequence[tuple[str, str]]) -> str:
    """A list of terms and what they are; plain text."""
    return (
        f"<dl>{''.join(f'<dt>{escape(term)}</dt><dd>{escape(said)}</dd>' for term, said in pairs)}</dl>"
        if pairs
        else ""
    )


def environment_terms(record: Record) -> list[tuple[str, str]]:
    """Versions, hardware and code state as terms."""
    return [
        (_title(str(key)), _flat(value))
        for key, value in record.environment.items()
        if key != "seeds"
    ]


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(_pair(str(key), part) for key, part in value.items()) or text.MISSING
    if isinstance(value, list):
        return ", ".join(_flat(part) for part in value) or text.MISSING
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)


def _pair(key: str, value: Any) -> str:
    """A key and its value; "dirty: false" reads as "not dirty", bytes in their unit."""
    if isinstance(value, bool):
        return f"{'' if value else 'not '}{text.display_name(key)}"
    if key.endswith("bytes") and isinstance(value, (int, float)):
        return (
            f"{text.display_name(key.removesuffix('bytes')).strip() or 'size'} {text.size(value)}"
        )
    return f"{text.display_name(key)} {_flat(value)}"
