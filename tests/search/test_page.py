"""Page of a search."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from instil.cli.search_table import show
from instil.search.page import headline, render
from tests.search.recipes import search


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished search."""
    path = tmp_path_factory.mktemp("pages") / "search"
    search(path)
    return path


def test_the_page_has_finalists_plots_refused_methods_and_the_recipe(folder: Path) -> None:
    page = (folder / "search.html").read_text()
    outcome = json.loads((folder / "search.json").read_text())
    for row in outcome["finalists"]:
        assert f"{row['test']['mean']:.4g}" in page
    assert f">{outcome['teacher']['score']:.4g}<" in page
    assert page.count("<svg") >= 4
    assert "needs features of the student" in page
    assert "name: tiny-best" in page
    assert "$" not in page.partition("</style>")[0]


def test_the_console_table_ends_with_the_teacher(folder: Path) -> None:
    outcome = json.loads((folder / "search.json").read_text())
    console = Console(file=io.StringIO(), width=200)
    show(outcome, console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    row = next(line for line in lines if "teacher" in line)
    assert f"{outcome['teacher']['score']:.4g}" in row
    assert f"{outcome['teacher']['parameters']:,}" in row


def test_the_page_shows_the_weights(folder: Path) -> None:
    outcome = json.loads((folder / "search.json").read_text())
    arms = {arm["name"]: arm for arm in outcome["arms"]}
    arms["dkd"]["changes"]["objectives"]["dkd"]["weight"] = 0.0371
    page = render(outcome, "x: y")
    assert ">Weight<" in page
    assert "<td>0.0371</td>" in page
    assert "<td>0.0371</td>" not in (folder / "search.html").read_text()


def test_texts_are_escaped(folder: Path) -> None:
    outcome = json.loads((folder / "search.json").read_text())
    outcome["name"] = "<script>"
    outcome["refused"] = {"dkd": "a < b"}
    page = render(outcome, "x: <y>")
    assert "<script>" not in page
    assert "a &lt; b" in page
    assert "x: &lt;y&gt;" in page


def test_the_headline_names_the_methods_that_the_data_cannot_separate() -> None:
    outcome = {"headline": "accuracy", "winner": "dkd", "best": ["dkd", "kd"]}
    assert headline(outcome).endswith("The test data cannot separate it from kd.")
    assert "separate it from all others" in headline(outcome | {"best": ["dkd"]})
    better = headline(outcome | {"better_on_test": ["kd"]})
    assert "On the test data kd had better scores outside the noise" in better
    assert "cannot separate" not in better


def test_the_caption_names_the_rounds_whose_scores_are_part_of_the_mean(folder: Path) -> None:
    outcome = json.loads((folder / "search.json").read_text())
    seeds = len(outcome["final_seeds"])
    assert all(len(row["validation"]["values"]) > seeds for row in outcome["finalists"])
    assert f"of {seeds} seeds, for validation also of the rounds with all steps." in render(
        outcome, "x: y"
    )
