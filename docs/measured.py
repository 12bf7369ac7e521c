"""Tables of measured numbers, read from the JSON files in ``benchmarks``."""

from __future__ import annotations

import functools
import json
from itertools import groupby
from pathlib import Path
from typing import Any

from formatting import NOT_PERCENT, table
from recipe_pages import recipe_anchor

from instil.plan.statistics import paired_gain

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
Row = dict[str, Any]

NOT_A_METHOD = ("alone", "reference")
ARMS = ("teacher", "alone", "pseudo_labels", "noise", "blobs", "random_init", "distilled")
CONDITIONS = {
    "all_labels": "Teacher with all labels",
    "student_labels": "Teacher with the student's labels",
    "tenth": "Teacher with a tenth of the labels, student with all",
}
DEFAULT_ARM = "batch_dist"
COMPARED = ("alone", "label_smoothing", "pseudo_labels", "labelled_t4", "batch_t2", DEFAULT_ARM)
DEFAULTS_HEADER = (
    "task",
    "labels",
    "teacher",
    "student alone",
    "label smoothing",
    "pseudo-labels",
    "KD, T = 4, average over labelled",
    "KD, T = 2",
    "DIST (default)",
    "default minus KD, T = 2",
    "default minus pseudo-labels",
    "default minus student alone",
)
ARM_TITLES = {
    "alone": "student alone",
    "label_smoothing": "label smoothing",
    "pseudo_labels": "pseudo-labels",
    "labelled_t1": "labels averaged over labelled items, KD T = 1",
    "labelled_t4": "labels averaged over labelled items, KD T = 4",
    "batch_t1": "labels averaged over the batch, KD T = 1",
    "batch_t2": "labels averaged over the batch, KD T = 2",
    "batch_t4": "labels averaged over the batch, KD T = 4",
    "batch_entropy": "labels averaged over the batch, KD, T from the teacher's entropy",
    "kd_t1": "KD alone, T = 1",
    "kd_t2": "KD alone, T = 2",
    "pseudo_t1": "labels and pseudo-labels, KD T = 1",
    "pseudo_t2": "labels and pseudo-labels, KD T = 2",
    "batch_dist": "labels averaged over the batch, DIST (default)",
    "batch_dist_2": "labels averaged over the batch, DIST with weight 2",
    "dist": "DIST alone",
}


@functools.cache
def _rows(name: str) -> list[Row]:
    path = BENCHMARKS / f"{name}.json"
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return rows


def cost_of(name: str) -> str:
    """Sentence on the measured time of a step with this objective; empty if it was not measured."""
    for row in _rows("methods"):
        if row["name"] == name and "time" in row:
            return (
                f"A training step took {row['time']:.2f} times as long as the step of the "
                "reference; see [results](../results.md)."
            )
    return ""


def results_page() -> str:
    """Results of every objective, one table per task."""
    lines = [
        "# Results of the methods: tables",
        "",
        "[Results of the methods](results.md) explains the experiment and the columns.",
        "",
    ]
    for task, group in groupby(_rows("methods"), key=lambda row: row["task"]):
        alone, reference, *others = group
        metric = f"{alone['metric'].replace('_', ' ')} (%)"
        header = (
            "method",
            metric,
            "minus student alone",
            "minus reference",
            "weight",
            "time",
            "memory",
        )
        ordered = [alone, reference, *sorted(others, key=lambda row: -row["mean"])]
        lines += [f"## {task.replace('_', ' ').capitalize()}", ""]
        lines += table(header, [_result(row, alone, reference) for row in ordered])
    return "\n".join(lines)


def _result(row: Row, *references: Row) -> list[str]:
    name = row["name"]
    link = name if name in NOT_A_METHOD else f"[{name}](methods/{name}.md)"
    differences = [_difference(row, reference) for reference in references]
    cost = [f"{row['weight']:g}", f"{row['time']:.2f}", f"{row['memory']:.2f}"]
    return [link, _percent(row), *differences, *cost]


def _difference(row: Row, reference: Row) -> str:
    """Difference in points; bold if it exceeds two standard deviations of itself."""
    if row is reference:
        return ""
    points = 100 * (row["mean"] - reference["mean"])
    deviation = 100 * (row["std"] ** 2 + reference["std"] ** 2) ** 0.5
    return f"**{points:+.1f}**" if abs(points) > 2 * deviation else f"{points:+.1f}"


def _percent(summary: Row) -> str:
    digits = 2 if 0 < abs(summary["mean"]) < 0.01 else 1
    text = f"{100 * summary['mean']:.{digits}f}"
    if summary["std"] is not None:
        text += f" ± {100 * summary['std']:.{digits}f}"
    return text


def gains_page() -> str:
    """Gains of the shipped recipes, one table per question of ``benchmarks/gains.yaml``."""
    lines = [
        "# Gains of the recipes: tables",
        "",
        "[Gains of the recipes](gains.md) explains the experiment and the columns.",
        "",
    ]
    for question, group in groupby(_rows("gains"), key=lambda row: row["question"]):
        rows = list(group)
        arms = [arm for arm in ARMS if any(arm in row for row in rows)]
        header = ("recipe", "metric", *map(_arm_title, arms), "gain")
        lines += [f"## {question}", ""]
        body = []
        for row in rows:
            body += [_gain_row(row, metric, arms) for metric in row["metrics"]]
        lines += table(header, body)
    return "\n".join(lines)


def _gain_row(row: Row, metric: str, arms: list[str]) -> list[str]:
    show = _format_number if metric in NOT_PERCENT else _percent
    numbers = [show(row[arm][metric]) if arm in row else "" for arm in arms]
    is_headline = metric == row["headline"]
    command, difference = (_command(row), _gain(row, arms[-1])) if is_headline else ("", "")
    return [command, metric.replace("_", " "), *numbers, difference]


def _gain(row: Row, arm: str) -> str:
    """Gain in the main metric; bold if its interval excludes zero."""
    gains = [row["gain"]] if row.get("gain") else list(row["gains"].values())
    if not gains:
        return ""
    smallest = min(gains, key=lambda summary: summary["mean"])
    digits = 2 if row[arm][row["headline"]]["mean"] < 0.01 else 1
    scale = 1 if row["headline"] in NOT_PERCENT else 100
    text = f"{scale * smallest['mean']:+.{digits}f}"
    return f"**{text}**" if smallest["significant"] else text


def defaults_page() -> str:
    """Measurements behind the defaults: the choice, then one table per teacher and length."""
    data = json.loads((BENCHMARKS / "defaults.json").read_text(encoding="utf-8"))
    lines = [
        "# Defaults: tables",
        "",
        "[Defaults](defaults.md) explains the experiment and the columns.",
        "",
        *_choice(data["choose"]),
    ]
    rows = data["confirm"]
    for teacher, title in CONDITIONS.items():
        for steps in sorted({row["steps"] for row in rows if row["teacher"] == teacher}):
            group = [row for row in rows if (row["teacher"], row["steps"]) == (teacher, steps)]
            group.sort(key=lambda row: (row["share"], row["task"]))
            lines += [f"## {title}, {steps} steps", ""]
            lines += table(DEFAULTS_HEADER, map(_default_row, group))
    return "\n".join(lines)


def _choice(rows: list[Row]) -> list[str]:
    """Mean over the tasks of the difference to pseudo-labels on validation data."""
    conditions = sorted({(row["teacher"], row["share"]) for row in rows})
    titles = [f"{CONDITIONS[teacher]}, {100 * share:g} %" for teacher, share in conditions]
    body = []
    for arm, title in ARM_TITLES.items():
        means = []
        for condition in conditions:
            group = [row for row in rows if (row["teacher"], row["share"]) == condition]
            gains = [_best(row, arm) - _best(row, "pseudo_labels") for row in group]
            means.append(f"{100 * sum(gains) / len(gains):+.1f}")
        body.append([title, *means])
    heading = "## Choice: points above pseudo-labels on validation data, mean over the tasks"
    return [heading, "", *table(("arm", *titles), body)]


def _best(row: Row, arm: str) -> float:
    """Mean accuracy of an arm at its best learning rate."""
    return max(sum(values) / len(values) for values in row["arms"][arm].values())


def _default_row(row: Row) -> list[str]:
    """Means over the seeds in percent, and three paired differences with their intervals."""
    values = {arm: next(iter(row["arms"][arm].values())) for arm in COMPARED}
    means = [f"{100 * sum(accuracies) / len(accuracies):.1f}" for accuracies in values.values()]
    controls = ("batch_t2", "pseudo_labels", "alone")
    differences = [_paired_difference(values[DEFAULT_ARM], values[arm]) for arm in controls]
    labels = f"{row['labels']} ({100 * row['share']:g} %)"
    teacher = f"{100 * row['teacher_test_accuracy']:.1f}"
    return [row["task"], labels, teacher, *means, *differences]


def _paired_difference(treated: list[float], control: list[float]) -> str:
    """Mean paired difference in points and half the width of its interval; bold outside noise."""
    result = paired_gain(treated, control)
    half_width = 100 * (result["interval"][1] - result["mean"])
    text = f"{100 * result['mean']:+.1f}"
    return f"{f'**{text}**' if result['significant'] else text} ± {half_width:.1f}"


def costs_page() -> str:
    """Costs of the schemes and of the losses."""
    schemes, losses = [], []
    for row in _rows("schemes"):
        passes = ", ".join(f"{net} {count:g}" for net, count in row["passes"].items())
        ratios = [f"{row['time']:.2f}", f"{row['memory']:.2f}"]
        schemes.append([row["scheme"], *ratios, f"{row['ms']:.0f}", passes])
    for row in _rows("losses"):
        keys = ("ms", "plain", "torchdistill", "MiB_instil", "MiB_plain")
        numbers = ["" if row[key] is None else f"{row[key]:g}" for key in keys]
        losses.append([f"`{row['loss']}`", row["size"], *numbers])
    loss_header = (
        "loss",
        "size",
        "ms",
        "ratio to plain PyTorch",
        "ratio to torchdistill",
        "MiB",
        "MiB, plain PyTorch",
    )
    return "\n".join(
        [
            "# Costs: tables",
            "",
            "[Costs of schemes and losses](costs.md) explains the experiment and the columns.",
            "",
            "## Schemes",
            "",
            *table(("scheme", "time", "memory", "ms per step", "passes"), schemes),
            "## Losses",
            "",
            *table(loss_header, losses),
        ]
    )


def language_page() -> str:
    """Quality and generation speed of the language models in ``benchmarks/gains.json``."""
    header = (
        "recipe",
        "network",
        "perplexity",
        "bits per byte",
        "agreement (%)",
        "tokens per second",
        "memory beyond the weights",
    )
    body = []
    for row in _rows("gains"):
        if "perplexity" in row["distilled"]:
            arms = [arm for arm in ARMS if arm in row]
            body += [_language_row(row, arm, is_first=arm == arms[0]) for arm in arms]
    return "\n".join(
        [
            "# Language models: tables",
            "",
            "[Train language models](language.md#measurements) explains the experiment.",
            "",
            *table(header, body),
        ]
    )


def _language_row(row: Row, arm: str, is_first: bool) -> list[str]:
    metrics = row[arm]
    agreement = _percent(metrics["agreement"]) if "agreement" in metrics else ""
    numbers = [_format_number(metrics.get(metric)) for metric in ("perplexity", "bits_per_byte")]
    speed = ["", ""]
    if writing := row.get("writing", {}).get(arm):
        speed = [f"{writing['written_per_second']:.0f}", f"{writing['writing_bytes'] / 1e6:.1f} MB"]
    command = _command(row) if is_first else ""
    return [command, _arm_title(arm), *numbers, agreement, *speed]


def _arm_title(arm: str) -> str:
    titles = {
        "alone": "student alone",
        "pseudo_labels": "pseudo-labels",
        "random_init": "untrained student",
    }
    return titles.get(arm, arm)


def _command(row: Row) -> str:
    """Link to a shipped recipe, and its overrides."""
    name, *options = row["command"].split()
    link = f"[{name.split('/')[1]}](recipes.md#{recipe_anchor(name)})"
    return " ".join([link, *(f"`{option}`" for option in options)])


def _format_number(summary: Row | None) -> str:
    """Mean and standard deviation with three significant digits."""
    if summary is None:
        return ""
    digits = 2 if summary["mean"] < 10 else 1 if summary["mean"] < 100 else 0
    text = f"{summary['mean']:.{digits}f}"
    if summary["std"] is not None:
        text += f" ± {summary['std']:.{digits}f}"
    return text
