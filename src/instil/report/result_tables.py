"""Tables of the test metrics: all arms, and the headline metric of each seed."""

from __future__ import annotations

from instil.report.names import display_name, display_title
from instil.report.quantities import MISSING, amount, points, spread
from instil.report.record import SECONDARY, Record
from instil.report.tables import Cell, table

TITLES = {"agreement": "Agreement with teacher", "ece": "Calibration error"}


def arms_table(record: Record) -> str:
    """Test metrics of each arm, and its gain over the student alone."""
    if not record.arms:
        return "<p>No network has a test result yet.</p>"
    others = _other_metrics(record)
    direction = " (lower is better)" if record.lower_is_better else ""
    header = [
        "Network",
        f"{display_title(record.metric)}{direction}",
        *(_title(record, metric) for metric in others),
        "Gain over the student alone",
    ]
    rows: list[list[Cell]] = []
    for arm in record.arms:
        cells: list[Cell] = [_value(record, arm, record.metric, record.is_fraction)]
        for metric in others:
            can_be_fraction = record.is_fraction or metric in SECONDARY or record.is_added(metric)
            is_fraction = can_be_fraction and not record.is_number(metric)
            cells.append(_value(record, arm, metric, is_fraction))
        rows.append([record.arm_name(arm), *cells, _gain_over_alone(record, arm)])
    caption = "Test split, one seed"
    if len(record.seeds) > 1:
        caption = f"Test split, mean ± standard deviation over {len(record.seeds)} seeds"
    strong = record.arms.index("distilled") if "distilled" in record.arms else -1
    return table(caption, header, rows, [record.arm_color(arm) for arm in record.arms], strong)


def _title(record: Record, metric: str) -> str:
    """Heading of a metric; those that the recipe adds have their direction."""
    title = TITLES.get(metric, display_title(metric))
    if record.get("metrics", metric, "higher_is_better") is False:
        return f"{title} (lower is better)"
    return title


def _other_metrics(record: Record) -> list[str]:
    """Metrics besides the headline metric and the loss; agreement and calibration come first."""
    metrics: dict[str, None] = {}
    for arm in record.arms:
        values = record.result[arm]
        metrics |= dict.fromkeys(
            name for name, value in values.items() if isinstance(value, dict) and "mean" in value
        )
    ordered = dict.fromkeys(("agreement", "ece", *metrics))
    return [name for name in ordered if name in metrics and name not in (record.metric, "loss")]


def _value(record: Record, arm: str, metric: str, is_fraction: bool) -> Cell:
    mean = record.mean(arm, metric)
    text = amount(mean, is_fraction)
    std = record.get_number(arm, metric, "std")
    return text, spread(mean, std, is_fraction).removeprefix(text)


def _gain_over_alone(record: Record, arm: str) -> Cell:
    value = record.mean(arm, record.metric)
    alone = record.mean("alone", record.metric)
    if arm == "alone" or value is None or alone is None:
        return MISSING
    interval = record.get_interval("gain")
    if arm != "distilled" or interval is None:
        return points(record.improvement(value, alone), record.is_fraction)
    low, high = (points(end, record.is_fraction, sign=False) for end in interval)
    return points(record.get_number("gain", "mean"), record.is_fraction), f"{low} to {high}"


def seeds_table(record: Record) -> str:
    """Headline metric of each seed, and the gain over the student alone; empty for one seed."""
    metric = record.metric
    values = {arm: record.values(arm, metric) for arm in record.arms if arm != "teacher"}
    values = {arm: each for arm, each in values.items() if len(each) == len(record.seeds)}
    if len(record.seeds) < 2 or "distilled" not in values:
        return ""
    rows: list[list[Cell]] = []
    for index, seed in enumerate(record.seeds):
        row = {arm: each[index] for arm, each in values.items()}
        alone, distilled = row.get("alone"), row["distilled"]
        gain = None
        if alone is not None and distilled is not None:
            gain = record.improvement(distilled, alone)
        cells = [amount(value, record.is_fraction) for value in row.values()]
        rows.append([f"{seed}", *cells, points(gain, record.is_fraction)])
    header = ["Seed", *(record.arm_name(arm) for arm in values), "Gain"]
    return table(f"Test {display_name(metric)} of each seed", header, rows)
