"""Stages that compress the student of an earlier stage further."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import instil
from instil.plan.doctor import doctor
from instil.recipe import RecipeError
from tests.experiment.small import recipe, run_of

VIT = {"model": "vit", "options": {"width": 8, "depth": 4}}


def rounds(*layers: int) -> dict[str, Any]:
    """Return sections of a student of four layers that loses some before each later stage."""
    stages: list[dict[str, Any]] = [{}]
    stages += [
        {"student": {"model": "previous", "changes": {"depth": {"layers": count}}}}
        for count in layers
    ]
    return {"student": VIT, "stages": stages, "seeds": [0]}


def num_layers(state: dict[str, torch.Tensor]) -> int:
    return len({name.split(".")[1] for name in state if name.startswith("stages.")})


def test_a_student_is_pruned_in_rounds(tmp_path: Path) -> None:
    pruned = recipe("baselines=[alone]", "train.epochs=1", "export=true", **rounds(3, 2))
    assert doctor(pruned)["problems"] == []
    result = run_of(pruned, tmp_path / "run")
    student = instil.load(tmp_path / "run")
    assert num_layers(student.net.model.state_dict()) == 2
    assert student(torch.rand(3, 1, 8, 8)).shape == (3, 10)
    # The student that is trained alone has the same size, so its cost is not listed.
    assert "alone" not in result["cost"]
    assert result["export"]["onnx"]["accuracy"] == result["distilled"]["accuracy"]["mean"]


def test_rounds_that_do_not_fit_are_errors_before_training(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"^stages\.1\.student\.changes\.depth"):
        run_of(recipe("baselines=[]", **rounds(9)), tmp_path / "run")
    teacher = {"model": "previous", "changes": {"depth": {"layers": 1}}}
    with pytest.raises(
        RecipeError, match=r"stages\.1\.teacher.*changes: a teacher from an earlier"
    ):
        recipe(student=VIT, stages=[{}, {"teacher": teacher}])
