"""Examples of mistakes and the accuracy of each class, from a real run to the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import instil
from instil.data.sources.digits import digits
from instil.plan.mistakes import thumbnail
from instil.report.mistakes import class_accuracy_table, mistake_examples
from instil.report.page import render
from instil.report.run_files import read_run
from instil.tasks.bases.scores import mistakes
from tests.experiment.small import recipe, run_of
from tests.report.sample import change, make_run


def test_mistakes_are_the_most_confident_wrong_decisions() -> None:
    logits = torch.tensor([[4.0, 0], [0, 1], [0, 3], [2, 0], [0, 9]])
    label = torch.tensor([0, 0, 0, 1, -100])
    rows = mistakes(logits, label, torch.arange(10, 15), logits.flip(1))
    assert [one["row"] for one in rows] == [12, 13, 11]
    assert rows[0] == {
        "row": 12,
        "true": 0,
        "student": 1,
        "teacher": 0,
        "confidence": pytest.approx(1 / (1 + 2.718281828**-3)),
    }
    many = torch.zeros(30, 2)
    many[:, 1] = 1
    assert len(mistakes(many, torch.zeros(30).long(), torch.arange(30))) == 10


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 8, 8), (64, 64, 1)),
        ((3, 500, 250), (128, 64, 3)),
        ((5, 100, 90), (100, 90, 1)),
        ((3, 2000, 1), (128, 1, 3)),
    ],
)
def test_thumbnails_have_a_size_to_look_at(
    shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    rows = thumbnail(torch.ones(shape))
    assert rows.shape == expected
    assert rows.dtype == torch.uint8
    assert rows.unique().tolist() == [255]


def test_a_run_shows_the_images_that_its_student_gets_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run_of(recipe("seeds=[0]", "baselines=[]"), folder)
    result = json.loads((folder / "result.json").read_text())
    listed = result["details"]["distilled"]["mistakes"]
    assert 0 < len(listed) <= 10
    test, student = digits().test, instil.load(folder)
    for one in listed:
        probability = student(test.image[one["row"]][None])[0]
        assert int(test.label[one["row"]]) == one["true"] != one["student"]
        assert int(probability.argmax()) == one["student"]
        assert float(probability.max()) == pytest.approx(one["confidence"], abs=1e-5)
    grid = mistake_examples(read_run(folder))
    assert grid.count('<img src="data:image/png;base64,') == len(listed)
    assert f"<b>true: {listed[0]['true']}</b>" in grid
    page = render(read_run(folder))
    assert grid in page
    assert '<a href="student.safetensors">' in page
    assert "student.gguf" not in page, "only files that there are"
    assert len(page.encode()) < 500_000


def test_accuracy_of_each_class(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", classes=["cat", "dog"])

    def edit(result: dict) -> None:  # type: ignore[type-arg]
        result["details"]["teacher"]["confusion"] = [[9, 1], [0, 10]]
        result["details"]["distilled"]["confusion"] = [[8, 2], [5, 5]]
        result["details"].pop("alone")

    table = class_accuracy_table(read_run(change(run, edit))).replace("\u202f", " ")
    assert '<th scope="row">cat</th><td>10</td><td>90.0 %</td><td>80.0 %</td>' in table
    assert '<th scope="row">dog</th><td>10</td><td>100.0 %</td><td>50.0 %</td>' in table
    assert "Student alone" not in table


def test_of_many_classes_the_worst_are_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", classes=[f"class {n}" for n in range(40)])

    def edit(result: dict) -> None:  # type: ignore[type-arg]
        rows = [[0] * 40 for _ in range(40)]
        for index, row in enumerate(rows):
            row[index] = index + 1
            row[0] += 10
        result["details"] = {"distilled": {"confusion": rows}}

    table = class_accuracy_table(read_run(change(run, edit)))
    assert "the 30 classes with the lowest accuracy of 40" in table
    assert "class 1<" in table
    assert "class 39<" not in table


def test_nothing_is_shown_of_what_is_not_there(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    wrong = [3, {"true": "x"}, {"true": 99, "student": None}]

    def edit(result: dict) -> None:  # type: ignore[type-arg]
        result["details"]["distilled"]["mistakes"] = wrong

    record = read_run(change(run, edit))
    assert mistake_examples(record) == ""
    assert class_accuracy_table(read_run(change(run, lambda result: result.pop("details")))) == ""
    (run / "checkpoint").mkdir()
    (run / "checkpoint" / "mistake-2.png").write_bytes(b"png")
    assert "true: 99" in mistake_examples(record)
