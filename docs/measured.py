"""The pages of measured numbers: what methods and recipes reached, from the JSON files of ``benchmarks``."""

from __future__ import annotations

import functools
import json
from itertools import groupby
from pathlib import Path
from typing import Any

from instil.experiment.statistics import gain

HERE = Path(__file__).parent
MARK = "<!-- what follows is written by docs/generate.py -->\n"
UNITLESS = ("perplexity", "bits_per_byte")  # metrics that are shown as they are, not in percent
NO_TABLE = ("alone", "reference")
ARMS = ("teacher", "alone", "pseudo_labels", "noise", "blobs", "distilled")


def cost_of(name: str) -> str:
    """What a step costs beside the reference, where it was measured."""
    row = next((row for row in _numbers("methods") if row["name"] == name and "time" in row), None)
    return (
        f"A step took {row['time']:.2f} times as long as one of the reference, see [results](../results.md)."
        if row
        else ""
    )


@functools.cache
def _numbers(name: str) -> list[dict[str, Any]]:
    path = HERE.parent / "benchmarks" / f"{name}.json"
    found: list[dict[str, Any]] = (
        json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    )
    return found


def _kept(page: str) -> str:
    """What stands before the mark, which is written by hand."""
    return (HERE / page).read_text(encoding="utf-8").partition(MARK)[0] + MARK


def results_page() -> str:
    """The table of ``benchmarks/methods.json``, a part a task."""
    lines = [_kept("results.md")]
    for task, group in groupby(_numbers("methods"), key=lambda row: row["task"]):
        alone, reference, *others = group
        lines += [
            f"### {task}",
            "",
            f"| method | {alone['metric'].replace('_', ' ')}, % | to alone | to the reference | weight | time | memory |",
        ]
        lines += ["|---|---|---|---|---|---|---|"]
        lines += [
            _result(row, alone, reference)
            for row in (alone, reference, *sorted(others, key=lambda row: -row["mean"]))
        ]
        lines.append("")
    return "\n".join(lines)


def _result(row: dict[str, Any], *bases: dict[str, Any]) -> str:
    name = row["name"] if row["name"] in NO_TABLE else f"[{row['name']}](methods/{row['name']}.md)"
    told = " | ".join(_difference(row, base) for base in bases)
    return f"| {name} | {_percent(row)} | {told} | {row['weight']:g} | {row['time']:.2f} | {row['memory']:.2f} |"


def _difference(row: dict[str, Any], base: dict[str, Any]) -> str:
    """In points; bold where it is more than two standard deviations of itself."""
    gain, noise = (
        100 * (row["mean"] - base["mean"]),
        100 * (row["std"] ** 2 + base["std"] ** 2) ** 0.5,
    )
    return "" if row is base else f"**{gain:+.1f}**" if abs(gain) > 2 * noise else f"{gain:+.1f}"


def _percent(summary: dict[str, Any]) -> str:
    digits = 2 if 0 < abs(summary["mean"]) < 0.01 else 1
    return f"{100 * summary['mean']:.{digits}f}" + (
        f" ± {100 * summary['std']:.{digits}f}" if summary["std"] is not None else ""
    )


def gains_page() -> str:
    """The tables of ``benchmarks/gains.json``, a part a question of ``gains.yaml``."""
    lines = [_kept("gains.md")]
    for question, group in groupby(_numbers("gains"), key=lambda row: row["question"]):
        rows = list(group)
        arms = [arm for arm in ARMS if any(arm in row for row in rows)]
        lines += [
            f"### {question}",
            "",
            f"| recipe | metric | {' | '.join(arm.replace('_', '-') for arm in arms)} | gain |",
        ]
        lines += [f"|---|---|{'---|' * (len(arms) + 1)}"]
        lines += [_gained(row, metric, arms) for row in rows for metric in row["metrics"]]
        lines.append("")
    return "\n".join(lines)


CONDITIONS = {
    "all_labels": "Teacher with all labels",
    "student_labels": "Teacher with the student's labels",
    "tenth": "Teacher with a tenth of the labels, student with all",
}
DEFAULT_ARM = "batch_t2"
COMPARED = ("alone", "label_smoothing", "pseudo_labels", "labelled_t4", DEFAULT_ARM, "kd_t2")


def defaults_page() -> str:
    """The tables of ``benchmarks/defaults.json``: the choice, then one per teacher and length."""
    path = HERE.parent / "benchmarks" / "defaults.json"
    table = json.loads(path.read_text(encoding="utf-8"))
    rows = table["confirm"]
    lines = [_kept("defaults.md"), *_choice(table["choose"])]
    for teacher, title in CONDITIONS.items():
        for steps in sorted({row["steps"] for row in rows if row["teacher"] == teacher}):
            group = [row for row in rows if (row["teacher"], row["steps"]) == (teacher, steps)]
            lines += ["", f"### {title}, {steps} steps", ""]
            lines += [
                "| task | labels | teacher | alone | label smoothing | pseudo-labels | "
                "old default | default | KD alone, T = 2 | default to pseudo-labels | "
                "default to alone |",
                "|---|---|---|---|---|---|---|---|---|---|---|",
            ]
            ordered = sorted(group, key=lambda row: (row["share"], row["task"]))
            lines += [_default_row(row) for row in ordered]
    return "\n".join(lines) + "\n"


ARM_TITLES = {
    "alone": "student alone",
    "label_smoothing": "label smoothing",
    "pseudo_labels": "pseudo-labels",
    "labelled_t1": "labels averaged over labelled items, KD T = 1",
    "labelled_t4": "labels averaged over labelled items, KD T = 4 (old default)",
    "batch_t1": "labels averaged over the batch, KD T = 1",
    "batch_t2": "labels averaged over the batch, KD T = 2 (default)",
    "batch_t4": "labels averaged over the batch, KD T = 4",
    "batch_entropy": "labels averaged over the batch, KD, T by the teacher's entropy",
    "kd_t1": "KD alone, T = 1",
    "kd_t2": "KD alone, T = 2",
    "pseudo_t1": "labels and pseudo-labels, KD T = 1",
    "pseudo_t2": "labels and pseudo-labels, KD T = 2",
}


def _choice(rows: list[dict[str, Any]]) -> list[str]:
    """Mean over the tasks of the difference to pseudo-labels on validation data."""
    conditions = sorted({(row["teacher"], row["share"]) for row in rows})
    titles = [f"{CONDITIONS[teacher]}, {100 * share:g} %" for teacher, share in conditions]
    lines = ["", "### Choice: points above pseudo-labels on validation data, mean of the tasks", ""]
    lines += [f"| arm | {' | '.join(titles)} |", f"|---|{'---|' * len(titles)}"]
    for arm, title in ARM_TITLES.items():
        means = []
        for condition in conditions:
            group = [row for row in rows if (row["teacher"], row["share"]) == condition]
            gains = [_best(row, arm) - _best(row, "pseudo_labels") for row in group]
            means.append(f"{100 * sum(gains) / len(gains):+.1f}")
        lines.append(f"| {title} | {' | '.join(means)} |")
    return lines


def _best(row: dict[str, Any], arm: str) -> float:
    """Mean accuracy of an arm at its best learning rate."""
    return max(sum(values) / len(values) for values in row["arms"][arm].values())


def _default_row(row: dict[str, Any]) -> str:
    """Means over the seeds in percent, and two paired differences with their intervals."""
    values = {arm: next(iter(row["arms"][arm].values())) for arm in COMPARED}
    means = " | ".join(f"{100 * sum(v) / len(v):.1f}" for v in values.values())
    differences = " | ".join(
        _paired_difference(values[DEFAULT_ARM], values[arm]) for arm in ("pseudo_labels", "alone")
    )
    labels = f"{row['labels']} ({100 * row['share']:g} %)"
    teacher = f"{100 * row['teacher_test_accuracy']:.1f}"
    return f"| {row['task']} | {labels} | {teacher} | {means} | {differences} |"


def _paired_difference(treated: list[float], control: list[float]) -> str:
    """Mean paired difference in points and the half width of its interval; bold outside noise."""
    found = gain(treated, control)
    half = 100 * (found["interval"][1] - found["mean"])
    text = f"{100 * found['mean']:+.1f}"
    return f"{f'**{text}**' if found['significant'] else text} ± {half:.1f}"


def costs_page() -> str:
    """The tables of ``benchmarks/schemes.json`` and ``benchmarks/losses.json``."""
    lines = [
        _kept("costs.md"),
        "### Schemes",
        "",
        "| scheme | time | memory | ms | passes |",
        "|---|---|---|---|---|",
    ]
    for row in _numbers("schemes"):
        passes = ", ".join(f"{net} {count:g}" for net, count in row["passes"].items())
        lines.append(
            f"| {row['scheme']} | {row['time']:.2f} | {row['memory']:.2f} | {row['ms']:.0f} | {passes} |"
        )
    losses = _numbers("losses")
    if losses:
        lines += [
            "",
            "### Losses",
            "",
            "| loss | size | ms | to plain | to torchdistill | MiB | MiB, plain |",
            "|---|---|---|---|---|---|---|",
        ]
    for row in losses:
        told = (
            "" if row[key] is None else f"{row[key]:g}"
            for key in ("ms", "plain", "torchdistill", "MiB_ours", "MiB_plain")
        )
        lines.append(f"| `{row['loss']}` | {row['size']} | {' | '.join(told)} |")
    return "\n".join([*lines, ""])


def language_page() -> str:
    """What the rows of ``benchmarks/gains.json`` say of language models, an arm a line."""
    lines = [_kept("language.md")]
    rows = [row for row in _numbers("gains") if "perplexity" in row["distilled"]]
    if rows:
        lines += [
            "| recipe | network | perplexity | bits per byte | agreement, % | tokens per second | memory beyond the weights |"
        ]
        lines += ["|---|---|---|---|---|---|---|"]
    for row in rows:
        lines += [
            _spoken(row, arm, number == 0)
            for number, arm in enumerate(arm for arm in ARMS if arm in row)
        ]
    return "\n".join([*lines, ""])


def _spoken(row: dict[str, Any], arm: str, first: bool) -> str:
    writing, recipe = row.get("writing", {}).get(arm), _command(row) if first else ""
    perplexity, bits = (_number(row[arm].get(metric)) for metric in ("perplexity", "bits_per_byte"))
    agreement = _percent(row[arm]["agreement"]) if "agreement" in row[arm] else ""
    speed = (
        f"{writing['written_per_second']:.0f} | {writing['writing_bytes'] / 1e6:.1f} MB"
        if writing
        else " | "
    )
    return f"| {recipe} | {arm.replace('_', '-')} | {perplexity} | {bits} | {agreement} | {speed} |"


def _command(row: dict[str, Any]) -> str:
    name, *options = row["command"].split()
    return f"[{name.split('/')[1]}](../src/instil/recipes/{name}.yaml)" + "".join(
        f" `{option}`" for option in options
    )


def _number(summary: dict[str, Any] | None) -> str:
    """A mean and its standard deviation with three figures."""
    if summary is None:
        return ""
    digits = 2 if summary["mean"] < 10 else 1 if summary["mean"] < 100 else 0
    return f"{summary['mean']:.{digits}f}" + (
        f" ± {summary['std']:.{digits}f}" if summary["std"] is not None else ""
    )


def _gained(row: dict[str, Any], metric: str, arms: list[str]) -> str:
    unitless = metric in UNITLESS
    shown = _number if unitless else _percent
    numbers = " | ".join(shown(row[arm][metric]) if arm in row else "" for arm in arms)
    command = _command(row)
    first = metric == row["headline"]
    gain = (
        row.get("gain") or min(row["gains"].values(), key=lambda one: one["mean"], default=None)
        if first
        else None
    )
    digits = 2 if row[arms[-1]][row["headline"]]["mean"] < 0.01 else 1
    scale = 1 if unitless else 100
    told = "" if gain is None else f"{scale * gain['mean']:+.{digits}f}"
    told = f"**{told}**" if gain and gain["significant"] else told
    return f"| {command if first else ''} | {metric.replace('_', ' ')} | {numbers} | {told} |"
