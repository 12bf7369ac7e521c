"""A baseline as the exported student."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import instil
from instil.cli.result_lines import result_lines
from instil.data.sources.digits import digits
from instil.deployment.export import export
from instil.experiment.experiment import Experiment
from instil.plan.run_folder import RunFolder
from instil.plan.runner import Runner
from instil.recipe.errors import RecipeError
from tests.experiment.small import recipe, result, run_of

ARM = "exported_arm=pseudo_labels"
SENTENCE = "The exported student is the one of the baseline pseudo-labels, not the distilled one."


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "run"
    run_of(recipe(ARM, "export=true"), out)
    return out


def validation(run: Path, seed: int) -> float:
    record = json.loads((run / "checkpoint" / f"pseudo_labels-{seed}.json").read_text())
    return float(record["validation"]["accuracy"])


def test_the_files_are_those_of_the_best_student_of_the_arm(run: Path) -> None:
    content = result(run)
    seed = max((0, 1), key=lambda seed: validation(run, seed))
    assert (content["exported_arm"], content["exported_seed"]) == ("pseudo_labels", seed)
    exported = load_file(run / "student.safetensors")
    own = load_file(run / "checkpoint" / f"pseudo_labels-{seed}.safetensors")
    assert all(torch.equal(value, own[name]) for name, value in exported.items())
    expected = content["pseudo_labels"]["accuracy"]["values"][seed]
    assert content["export"]["onnx"]["accuracy"] == pytest.approx(expected, abs=0.002)
    test = digits().test
    is_right = instil.load(run)(test.image).argmax(-1) == test.label
    assert is_right.double().mean().item() == pytest.approx(expected)


def test_terminal_and_report_name_the_arm(run: Path) -> None:
    assert SENTENCE in result_lines(result(run))
    page = (run / "report.html").read_text(encoding="utf-8")
    assert SENTENCE in page
    assert "Pseudo-labels, ONNX" in page
    assert "Distilled, ONNX" not in page


def test_int8_is_that_of_the_arm(run: Path) -> None:
    export(run, int8=True)
    content = result(run)
    seed = content["exported_seed"]
    expected = content["pseudo_labels"]["accuracy"]["values"][seed]
    assert content["export"]["int8"]["accuracy"] == pytest.approx(expected, abs=0.02)


def test_another_arm_is_exported_by_resuming(run: Path) -> None:
    changed = recipe("exported_arm=alone", "export=false")
    content = run_of(changed, run, resume=True)
    own = load_file(run / "checkpoint" / f"alone-{content['exported_seed']}.safetensors")
    exported = load_file(run / "student.safetensors")
    assert all(torch.equal(value, own[name]) for name, value in exported.items())


def test_a_scheme_with_another_architecture_is_not_rebuilt(tmp_path: Path) -> None:
    reused = recipe(
        "exported_arm=alone",
        "seeds=[0]",
        student={"model": "cnn", "options": {"width": 3}},
        scheme={"type": "reused_classifier"},
        objectives={"simkd": {}},
    )
    assert run_of(reused, tmp_path / "run")["exported_arm"] == "alone"
    assert instil.load(tmp_path / "run")(digits().test.image[:2]).shape == (2, 10)


def test_an_arm_that_is_not_trained_is_refused(tmp_path: Path) -> None:
    message = (
        r"^exported_arm: expected distilled or one of baselines \(alone\), got aloen\. "
        r"Did you mean alone\?$"
    )
    with pytest.raises(RecipeError, match=message):
        Experiment.from_recipe(recipe("exported_arm=aloen", "baselines=[alone]"))
    runner = Runner(Experiment.from_recipe(recipe(ARM)), RunFolder(tmp_path), lambda *_: None)
    with pytest.raises(ValueError, match=r"^exported_arm: pseudo_labels is not trained, since"):
        runner.arms(lambda: False)
