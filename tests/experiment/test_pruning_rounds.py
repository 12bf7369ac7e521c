"""Stages that compress the student of an earlier stage further, and rounds of pruning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import instil
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from instil.plan.doctor import doctor
from instil.recipe import RecipeError, stages
from instil.students.lsq import LSQConv2d
from tests.experiment.small import lines, recipe, run_of

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


CNN = {"model": "cnn", "options": {"width": 8, "stages": 2, "depth": 2}}


def pruned(count: int, **options: Any) -> dict[str, Any]:
    """Return sections of a student that is a pruned copy of its teacher."""
    changes = {"prune": {"share": 0.75, **options}}
    student = {"model": "teacher", "changes": changes, "rounds": count}
    return {"teacher": CNN, "student": student, "seeds": [0], "baselines": ["alone"]}


def widths(net: torch.nn.Module) -> list[int]:
    return [part.out_channels for part in net.modules() if isinstance(part, torch.nn.Conv2d)]


@pytest.mark.parametrize("by", ["magnitude", "taylor"])
def test_a_student_loses_its_share_in_rounds(by: str, tmp_path: Path) -> None:
    one = recipe("train.epochs=5", **pruned(2, by=by))
    assert [stage.train.epochs for stage in stages(one)] == [2, 3]
    # The teacher is trained as long as without rounds.
    assert {stage.teacher_train.epochs for stage in stages(one) if stage.teacher_train} == {5}
    run_of(one, tmp_path / "run")
    student = instil.load(tmp_path / "run")
    assert widths(student.net) == [2, 2, 4, 4]
    assert student(torch.rand(3, 1, 8, 8)).shape == (3, 10)
    assert {entry["stage"] for entry in lines(tmp_path / "run") if "stage" in entry} == {0, 1}


def test_changes_after_prune_belong_to_the_last_round() -> None:
    sections = pruned(2)
    sections["student"]["changes"] |= {"quantized": {"bits": 4}}
    first, last = stages(recipe(**sections))
    assert list(first.student.changes) == ["prune"]
    assert list(last.student.changes) == ["prune", "quantized"]
    assert first.student.changes["prune"]["share"] == pytest.approx(0.5)


def test_rounds_that_do_not_fit() -> None:
    with pytest.raises(RecipeError, match=r"student\.rounds: the training is too short.* got 3"):
        recipe("train.epochs=2", **pruned(3))
    with pytest.raises(RecipeError, match=r"rounds: nothing is pruned"):
        recipe(student={**CNN, "rounds": 2})
    with pytest.raises(RecipeError, match=r"student\.rounds: not with stages"):
        recipe(**pruned(2), stages=[{}])
    with pytest.raises(RecipeError, match=r"rounds: a teacher is not pruned"):
        recipe(teacher={**CNN, "changes": {"prune": {"share": 0.5}}, "rounds": 2})
    with pytest.raises(RecipeError, match=r"prune\.share: expected a number between 0 and 1"):
        recipe(**pruned(2, share=1.5))


def test_taylor_without_labels_is_an_error(tmp_path: Path) -> None:
    sections = pruned(1, by="taylor") | {"baselines": [], "objectives": {"kd": {}}}
    with pytest.raises(RecipeError, match=r"changes\.prune: by: taylor reads the loss on labels"):
        run_of(recipe("data.num_labeled=0", "teacher.is_trained=true", **sections), tmp_path / "r")


def test_compressions_observe_a_copy_on_the_inputs_of_its_teacher() -> None:
    teacher = CNN | {"input": {"mean": [0.5], "std": [0.25]}}
    student = {"model": "teacher", "changes": {"lsq": {}}}
    one = recipe(teacher=teacher, student=student)
    net: Any = build_network(one.student, Experiment.from_recipe(one), "student")
    first = next(part for part in net.model.modules() if isinstance(part, LSQConv2d))
    assert first.input_quantizer is not None
    # Pixels in [0, 1] are in [-2, 2] after normalisation.
    assert first.input_quantizer.lower.item() == -128
    seen: list[torch.Tensor] = []
    first.register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0]))
    net({"image": torch.zeros(1, 1, 8, 8)})
    assert seen[0].unique().tolist() == [-2.0]
