"""Trainings that still improved at their end, and converged ones."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest

from instil import recipe as recipes
from instil.cli.result_lines import convergence_line
from instil.plan.run import run
from instil.report.convergence import convergence_sentence, is_improving
from instil.report.page import render
from instil.report.record import Record
from instil.report.run_files import read_run
from tests.search.recipes import silent


def record_of(scores: list[list[float]], cosine: bool = False, **result: Any) -> Record:
    """Record of an arm with the validation scores of each seed."""
    rows = []
    for seed, values in enumerate(scores):
        for index, value in enumerate(values, 1):
            done = index / len(values)
            lr = (1 + math.cos(math.pi * done)) / 2 if cosine else 1.0
            rows.append(
                {
                    "arm": "distilled",
                    "seed": seed,
                    "stage": 0,
                    "step": 10 * index,
                    "lr": lr,
                    "validation": {"accuracy": value},
                }
            )
    summary = {"mean": scores[0][-1], "std": None, "values": [one[-1] for one in scores]}
    content = {"distilled": {"accuracy": summary}, "headline": "accuracy", **result}
    return Record(Path(), content, rows, recipe="train: {steps: 90}")


def saturating(rate: float, noise: float = 0.01, num_rows: int = 20) -> list[list[float]]:
    """Scores that approach 0.9, of three seeds."""
    chance = random.Random(0)
    return [
        [
            0.9 * (1 - math.exp(-rate * (index + 1) / num_rows)) + chance.gauss(0, noise)
            for index in range(num_rows)
        ]
        for _ in range(3)
    ]


def test_a_metric_that_still_rises_is_named_with_the_key_to_raise() -> None:
    record = record_of(saturating(1.0))
    assert is_improving(record, "distilled")
    sentence = convergence_sentence(record)
    assert "not converged for the distilled student" in sentence
    assert sentence.endswith("Raise train.steps")
    assert sentence in render(record).replace("&#x27;", "'")


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.05])
def test_a_metric_that_has_saturated_is_converged(noise: float) -> None:
    assert convergence_sentence(record_of(saturating(12.0, noise))) == ""


def test_noise_is_no_improvement() -> None:
    chance = random.Random(1)
    for _ in range(20):
        flat = [[0.1, *(0.5 + chance.gauss(0, 0.02) for _ in range(11))] for _ in range(3)]
        assert convergence_sentence(record_of(flat)) == ""


def test_a_smaller_error_is_an_improvement() -> None:
    errors = [[1 - score for score in scores] for scores in saturating(1.0)]
    assert not is_improving(record_of(errors), "distilled")
    assert is_improving(record_of(errors, higher_is_better=False), "distilled")


def test_the_rise_of_a_falling_learning_rate_is_no_lack_of_steps() -> None:
    """A plateau at a high rate, and a better one when the rate falls."""
    curve = [0.1, 0.5, 0.68, 0.7, 0.7, 0.7, 0.7, 0.7, 0.71, 0.72, 0.74, 0.76, 0.8, 0.84, 0.88]
    curve += [0.9, 0.91, 0.91, 0.91, 0.91]
    assert not is_improving(record_of([curve], cosine=True), "distilled")


def test_few_evaluations_are_not_judged() -> None:
    assert convergence_sentence(record_of([[0.2, 0.4, 0.6]])) == ""
    assert convergence_sentence(Record(Path(), record_of([[0.2]]).result)) == ""


@pytest.mark.parametrize(("epochs", "is_short"), [(8, True), (60, False)])
def test_a_training_of_a_few_epochs_has_not_converged(
    epochs: int, is_short: bool, tmp_path: Path
) -> None:
    changes = [f"train.epochs={epochs}", "teacher_train.epochs=15", "baselines=[alone]"]
    own = recipes.load("kd", [*changes, "seeds=[0]", "export=false", "device=cpu"])
    run(own, tmp_path / "run", None, silent())
    sentence = convergence_line(tmp_path / "run")
    assert ("Raise train.epochs." in sentence) == is_short
    record = read_run(tmp_path / "run")
    assert is_improving(record, "distilled") == is_short
    assert ("had not converged" in (tmp_path / "run/report.html").read_text("utf-8")) == is_short
