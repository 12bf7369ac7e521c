"""Charts as SVG: ticks at round values, marks where the numbers are, nothing outside the frame."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from instil.report.curves import loss_shares_plot, metric_plot
from instil.report.gain_plot import gain_plot
from instil.report.plots import Plot
from instil.report.quality import calibration_plot, confusion_plot
from instil.report.run_files import read_run
from instil.report.scales import Scale, linear_ticks, log_ticks, padded_range, tick_label
from instil.report.speed_quality import speed_quality_plot
from instil.report.svg import draw_svg
from tests.report.sample import change, make_run


@pytest.mark.parametrize(
    ("low", "high", "count", "expected"),
    [
        (0.0, 1.0, 5, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-2.6, 15.7, 8, [-2.5, 0.0, 2.5, 5.0, 7.5, 10.0, 12.5, 15.0]),
        (0.81, 0.93, 4, [0.85, 0.9]),
        (3.0, 3.0, 5, [3.0]),
    ],
)
def test_linear_ticks(low: float, high: float, count: int, expected: list[float]) -> None:
    assert linear_ticks(low, high, count) == pytest.approx(expected)


def test_log_ticks() -> None:
    assert log_ticks(0.013, 1.1) == [0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
    assert log_ticks(1e-6, 1e3) == [10.0**n for n in range(-6, 4)]


def test_labels() -> None:
    assert [tick_label(0.125, ".1~%"), tick_label(0.9, ".1~%"), tick_label(0.9, ".0%")] == [
        "12.5%",
        "90%",
        "90%",
    ]
    assert [tick_label(-2.5, ""), tick_label(-0.0, ""), tick_label(1e6, "")] == [
        "−2.5",
        "0",
        "1e+06",
    ]


def test_ranges_and_scales() -> None:
    assert padded_range([2.0, 4.0], True, False) == (0.0, pytest.approx(4.2))
    assert padded_range([0.5, 8.0], False, True) == (0.4, 10.0)
    scale = Scale(0.01, 100.0, 0.0, 400.0, is_log=True)
    assert [scale(0.01), scale(1.0), scale(100.0)] == pytest.approx([0.0, 200.0, 400.0])


def drawn(run: Path) -> dict[str, Plot]:
    record = read_run(run)
    plots = [
        gain_plot(record),
        speed_quality_plot(record),
        metric_plot(record, "accuracy", "curves", "Learning curves"),
        loss_shares_plot(record),
        calibration_plot(record),
        confusion_plot(record),
    ]
    return {plot.key: plot for plot in plots if isinstance(plot, Plot)}


@pytest.mark.parametrize("width", [980, 330])
def test_every_plot_is_well_formed_and_inside_its_frame(tmp_path: Path, width: int) -> None:
    plots = drawn(make_run(tmp_path / "run"))
    assert len(plots) == 6
    for plot in plots.values():
        root = ET.fromstring(draw_svg(plot, width))
        _, _, right, bottom = map(float, root.attrib["viewBox"].split())
        assert right == width
        for text in root.iter("text"):
            assert 0 <= float(text.attrib["x"]) <= right
            assert 0 <= float(text.attrib["y"]) <= bottom
        for line in root.iter("polyline"):
            xs = [float(point.split(",")[0]) for point in line.attrib["points"].split()]
            assert xs == sorted(xs)
            assert 0 <= xs[0] <= xs[-1] <= right


def test_a_gain_is_right_of_zero_by_its_size(tmp_path: Path) -> None:
    plot = drawn(make_run(tmp_path / "run"))["gains"]
    image = draw_svg(plot, 980)
    zero = float(re.findall(r'class="zero" d="M([\d.]+)', image)[0])
    positions = [float(x) for x in re.findall(r"translate\(([\d.]+) [\d.]+\) scale", image)]
    means = [trace["x"][0] for trace in plot.data]
    per_point = [
        (position - zero) / value for position, value in zip(positions, means, strict=True)
    ]
    assert per_point == pytest.approx([per_point[0]] * len(means), rel=0.02)


def test_a_busy_machine_is_named_and_stays_in_the_frame(tmp_path: Path) -> None:
    def busy(result: dict) -> None:  # type: ignore[type-arg]
        result["cost"]["student"]["latency"]["p90_ms"] = 16.7

    plot = drawn(change(make_run(tmp_path / "run"), busy))["speed-quality"]
    assert "other programs used the processor" in plot.caption
    image = draw_svg(plot, 330)
    ends = [float(end) for end in re.findall(r"H([\d.]+)M", image)]
    assert max(ends) <= 330
