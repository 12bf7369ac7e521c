"""Words of the doctor on the terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from instil import recipe as recipes
from instil.cli.doctor_page import show
from instil.early_signals.advice import task_rows
from instil.early_signals.task_signals import TaskSignals
from instil.experiment.data_checks import data_summary
from instil.experiment.experiment import Experiment
from instil.recipe import Recipe
from tests.experiment.small import recipe
from tests.recipe_sizes import small_data


def shown(one: Recipe) -> str:
    findings: dict[str, Any] = {
        "data": data_summary(Experiment.from_recipe(one)),
        "stages": [],
        "problems": [],
    }
    console = Console(file=io.StringIO(), width=200)
    show(findings, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_tokens_and_numbers_are_no_classes() -> None:
    text = shown(recipes.load("seq2seq", small_data("seq2seq")))
    assert "Data: pairs: train 64, validation " in text
    assert "class" not in text
    assert "class" not in shown(recipes.load("depth"))
    assert "; 10 classes; the student sees 100 labels." in shown(recipe())


@pytest.mark.parametrize("entropy", [0.01, 0.3, 0.8])
def test_the_entropy_of_tokens_is_not_that_of_classes(entropy: float) -> None:
    (row,) = task_rows(TaskSignals(entropy=entropy).to_json())
    assert row.title == "entropy of the teacher"
    assert "class" not in row.meaning


def test_problems_keep_their_brackets() -> None:
    findings = {"stages": [], "problems": ['parquet: pip install "instil[tables]"']}
    console = Console(file=io.StringIO(), width=200)
    show(findings, console)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == 'Problem: parquet: pip install "instil[tables]"\n'
