from pathlib import Path
from typing import Any

import pytest

from instil.report.curves import loss_shares_plot, metric_plot
from instil.report.plots import Plot
from instil.report.record import Record


def record(rows: list[dict[str, Any]]) -> Record:
    return Record(Path(), {}, rows)


def row(epoch: int, value: float, **other: Any) -> dict[str, Any]:
    return {
        "seed": 0,
        "arm": "distilled",
        "stage": 0,
        "epoch": epoch,
        "step": epoch,
        "validation": {"accuracy": value},
        **other,
    }


def drawn(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    plot = metric_plot(record(rows), "accuracy", "curves", "Curves")
    assert isinstance(plot, Plot)
    return plot.data


@pytest.mark.parametrize("first", [0, 1])
def test_epochs_are_counted_as_done_whatever_the_first_is_called(first: int) -> None:
    (trace,) = drawn([row(first + n, 0.5 + 0.1 * n) for n in range(3)])
    assert trace["x"] == [1, 2, 3]
    assert trace["y"] == pytest.approx([0.5, 0.6, 0.7])


def test_later_stages_follow_on_and_rows_within_an_epoch_share_it_out() -> None:
    rows = [
        row(0, 0.1),
        row(1, 0.2),
        row(0, 0.3, stage=1, step=2),
        row(0, 0.4, stage=1, step=3),
        row(1, 0.5, stage=1, step=4),
    ]
    assert drawn(rows)[0]["x"] == [1, 2, 2.5, 3, 4]


def test_seeds_are_thin_lines_and_their_mean_a_bold_one() -> None:
    rows = [row(1, 0.2), row(2, 0.4), row(1, 0.4, seed=1), row(2, 0.8, seed=1), row(3, 0.9, seed=1)]
    *thin, bold = drawn(rows)
    assert [trace["y"] for trace in thin] == [[0.2, 0.4], [0.4, 0.8, 0.9]]
    assert bold["x"] == [1, 2], "a mean is of all seeds or not drawn"
    assert bold["y"] == pytest.approx([0.3, 0.6])


@pytest.mark.parametrize(("metric", "is_number"), [("mae", True), ("own", True), ("own", False)])
def test_a_small_number_is_not_shown_in_percent(metric: str, is_number: bool) -> None:
    facts = {"metrics": {"own": {"is_fraction": not is_number}}}
    run = Record(Path(), facts, [row(1, 0.5, validation={metric: 0.5})])
    plot = metric_plot(run, metric, "curves", "Curves")
    assert isinstance(plot, Plot)
    assert ("tickformat" in plot.layout["yaxis"]) is not is_number


def test_a_step_that_a_resumed_run_repeats_counts_once() -> None:
    (trace,) = drawn([row(1, 0.2), row(2, 0.9), row(2, 0.4), row(3, 0.5)])
    assert trace["x"] == [1, 2, 3]
    assert trace["y"] == [0.2, 0.4, 0.5]


def test_shares_are_those_of_absolute_values() -> None:
    rows = [
        row(1, 0, losses={"student/kd": 3.0, "student/ce": -1.0}),
        row(1, 0, seed=1, losses={"student/kd": 1.0, "student/ce": 1.0}),
    ]
    plot = loss_shares_plot(record(rows))
    assert isinstance(plot, Plot)
    assert [(trace["name"], trace["y"]) for trace in plot.data] == [
        ("kd", [0.625]),
        ("ce", [0.375]),
    ]


def test_two_learners_keep_their_names_apart() -> None:
    plot = loss_shares_plot(record([row(1, 0, losses={"student/kd": 1.0, "critic/real": 1.0})]))
    assert isinstance(plot, Plot)
    assert [trace["name"] for trace in plot.data] == ["student/kd", "critic/real"]


def test_a_sentence_replaces_a_plot_without_data() -> None:
    assert "no validation accuracy" in str(metric_plot(record([]), "accuracy", "curves", "Curves"))
    assert "has no losses" in str(loss_shares_plot(record([])))
    assert "one loss only, kd" in str(
        loss_shares_plot(record([row(1, 0, losses={"student/kd": 1.0})]))
    )
