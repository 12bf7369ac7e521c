"""Size and speed of each network, on the page and on the terminal."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from instil.cli import summary_table
from instil.report.cost_table import cost_table
from instil.report.plots import Plot
from instil.report.record import Record
from instil.report.run_files import read_run
from instil.report.speed_quality import speed_quality_plot
from tests.experiment.small import recipe, run_of
from tests.report.sample import change, make_run


@pytest.fixture(scope="module")
def supernet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run that exports half of the channels of its student."""
    folder = tmp_path_factory.mktemp("runs") / "supernet"
    one = recipe(
        "seeds=[0]",
        "train.epochs=1",
        "baselines=[alone]",
        student={"model": "slimmable_cnn", "options": {"width": 4}},
        teacher=None,
        scheme={"type": "sandwich", "smallest_share": 0.5, "export_share": 0.5},
        objectives={"cross_entropy": {}, "alphanet": {}},
    )
    run_of(one, folder)
    return folder


def test_each_arm_of_a_supernet_has_its_own_size(supernet: Path) -> None:
    record = read_run(supernet)
    whole = record.get_number("cost", "alone", "parameters")
    exported = record.get_number("cost", "student", "parameters")
    assert whole is not None
    assert exported is not None
    assert whole > 2 * exported, "half of the channels are about a quarter of the weights"
    console = Console(record=True, width=140)
    summary_table.show(record.result, console)
    rows = {line[:15].strip(): line for line in console.export_text().splitlines()}
    assert f" {whole:,.0f} " in rows["student alone"]
    assert f" {exported:,.0f} " in rows["distilled"]


def test_the_cost_table_has_a_row_for_an_arm_of_another_size(supernet: Path) -> None:
    names = re.findall(r"</span>([^<]+)</th>", cost_table(read_run(supernet)))
    assert names == ["Student", "Student alone"]


def _with_larger_student_alone(result: dict[str, Any]) -> None:
    latency = {"median_ms": 0.5, "p90_ms": 0.6}
    result["cost"]["alone"] = {"parameters": 99, "bytes": 400, "latency": latency, "seconds": 1.0}


def test_the_plot_shows_the_latency_of_each_arm(tmp_path: Path) -> None:
    record = read_run(change(make_run(tmp_path / "run"), _with_larger_student_alone))
    plot = speed_quality_plot(record)
    assert isinstance(plot, Plot)
    latencies = {trace["name"]: trace["x"] for trace in plot.data}
    assert latencies["Student alone"] == [0.5]
    assert latencies["Distilled student"] == [0.0957]


def test_arms_of_one_size_share_a_cost(tmp_path: Path) -> None:
    record = Record(tmp_path, {"cost": {"teacher": {}, "student": {}}})
    assert record.cost_path("teacher") == ("cost", "teacher")
    assert record.cost_path("alone") == record.cost_path("distilled") == ("cost", "student")
