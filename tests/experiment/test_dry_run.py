"""Invalid input of every kind gives one clear error before training and writing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from instil.cli import main
from instil.engine.devices import default_device
from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from tests.experiment.small import SMALL, recipe

CODE = """
import torch
from torch import nn
def flat(classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
def narrow(classes): return nn.Linear(3, classes)
def raises(classes): raise KeyError("width")
def number(classes): return 3
def more(classes): return flat(classes + 1)
def frozen(classes): return flat(classes).requires_grad_(False)
"""

CASES: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "unknown option": ({}, ["objectives.kd.tau=2"], "objectives.kd.tau: unknown option"),
    "wrong type": (
        {},
        ["train.epochs=many"],
        "train.epochs: a whole number was expected, not 'many'",
    ),
    "a seed twice": ({}, ["seeds=[1,1]"], "seeds: the seed 1 is given twice"),
    "wrong tap": (
        {},
        ["student.taps={features: stages.7}"],
        "student.taps.features: MLP has no module 'stages.7'. Did you mean ",
    ),
    "wrong tap of the teacher": (
        {},
        ["teacher.taps={features: stagez.1}"],
        "teacher.taps.features: CNN has no module 'stagez.1'. Did you mean ",
    ),
    "a role that is not there": (
        {},
        ["objectives.fitnet={}"],
        "objectives.fitnet: FitNet needs features of the student, which outputs ",
    ),
    "no such pair": (
        {"student": {"model": "cnn"}},
        ["objectives.fitnet={pairs: [[7, 9]]}"],
        "objectives.fitnet: ",
    ),
    "no weights": (
        {},
        ["teacher.weights=no.pt"],
        "teacher.weights: no 'no.pt' in ",
    ),
    "weights of another model": ({}, ["teacher.weights=other.safetensors"], "teacher.weights: "),
    "no module": ({}, ["student.model=nowhere:build"], "student: no module 'nowhere' in "),
    "no function": (
        {},
        ["student={model: code_of_mine:flatt}"],
        "student: code_of_mine has no function 'flatt'. Did you mean flat",
    ),
    "code that raises": (
        {},
        ["student={model: code_of_mine:raises}"],
        "student: code_of_mine:raises cannot be built: KeyError: 'width'",
    ),
    "code that gives no model": (
        {},
        ["student={model: code_of_mine:number}"],
        "student: code_of_mine:number returned a int, not a torch.nn.Module",
    ),
    "code with a slip": (
        {},
        ["student.model=slip:build"],
        "student: slip cannot be imported: SyntaxError: ",
    ),
    "a loss with a slip": (
        {},
        ["imports=[slip]"],
        "imports: slip cannot be imported: SyntaxError: ",
    ),
    "a model of other images": (
        {},
        ["student={model: code_of_mine:narrow}"],
        "student: Linear fails on images of 1 x 8 x 8: mat1 and mat2 shapes",
    ),
    "a frozen student": (
        {},
        ["student={model: code_of_mine:frozen}"],
        "train: learner 'student' (student, objectives) has no parameter to train",
    ),
    "a mean of other channels": (
        {},
        ["student={model: cnn, input: {mean: [0.5, 0.5, 0.5]}}"],
        "student.input.mean: Expected 1 value, because the data have one channel, got 3",
    ),
    "a deviation of other channels": (
        {},
        ["teacher.input.std=[1, 1]", "data=npz:colour.npz"],
        "teacher.input.std: Expected 1 value or 3, one for each channel of the data, got 2",
    ),
    "a mean and a deviation of different lengths": (
        {},
        ["student={model: code_of_mine:flat, input: {mean: [0, 0, 0], std: [1, 1]}}"],
        "student.input.std: Expected 3 values, as in input.mean, got 2",
    ),
    "sparse gradients": (
        {},
        ["train.optimizer.type=SparseAdam"],
        "train.optimizer: SparseAdam needs sparse gradients",
    ),
    "a class too many": (
        {},
        ["student={model: code_of_mine:more}"],
        "student: the student gives 11 logits, the data has 10 classes: 0, 1, 2",
    ),
    "a class too few": (
        {},
        ["teacher={model: cnn, options: {classes: 9}, is_trained: true}"],
        "teacher: the teacher gives 9 logits, the data has 10",
    ),
    "no data": ({}, ["data={name: npz:none.npz}"], "data.name: no 'none.npz' in "),
    "no data of an option": (
        {},
        ["data={name: npz, path: colours.npz}"],
        "data.path: no 'colours.npz' in ",
    ),
    "unknown data": (
        {},
        ["data={name: digit}"],
        "data: unknown data source 'digit'. Expected one of `instil methods --kind data` or "
        "my_module:function. Did you mean digits",
    ),
    "an empty folder": ({}, ["data={name: folder:empty}"], "data.path: "),
    "a class without pictures": (
        {},
        ["data={name: folder:hollow}"],
        "data.path: the class folder ",
    ),
    "no archive": ({}, ["data={name: npz:broken.npz}"], "data: "),
    "images that are not finite": ({}, ["data={name: npz:nan.npz}"], "data: "),
    "one class": ({}, ["data={name: npz:one.npz}"], "data: all images are of one class (0)"),
    "labels of another kind": (
        {},
        ["data={name: npz:multi.npz}"],
        "task: kind is 'single', but the labels of 'npz:multi.npz' are 'multi'",
    ),
    "undefined for the labels": (
        {"task": {"kind": "multi"}},
        ["data={name: npz:multi.npz}"],
        "objectives.kd: set multi_label: true; without it, KD is not defined for multi-label",
    ),
    "a baseline that is undefined": (
        {"task": {"kind": "multi"}, "objectives": {"cross_entropy": {}}},
        ["data={name: npz:multi.npz}", "baselines=[label_smoothing]"],
        "baselines: label_smoothing is undefined for classification with 'multi' labels",
    ),
    "more labels than images": (
        {},
        ["data.num_labeled=2000"],
        "data.num_labeled: 2000 of 1000 labelled images cannot keep their label",
    ),
    "a cut too fine": (
        {},
        ["train.accumulate=400"],
        "train: a batch of 250 items cannot be cut into 1 ranks x 400 micro-batches",
    ),
    "a cut too fine for the labels": (
        {},
        ["data.num_labeled=10", "train.accumulate=20"],
        "train: a batch of 10 items cannot be cut",
    ),
    "a coupled loss cut": (
        {},
        ["train.accumulate=2", "objectives.rkd={}"],
        "objectives.rkd: its items depend on the whole batch",
    ),
    "an optimizer without a learner": (
        {},
        ["train.optimizers={critic: {lr: 1}}"],
        "optimizers.critic: Offline has no such learner",
    ),
    "a group without parameters": (
        {},
        ["train.optimizer.groups=[{match: hed.*, lr: 1e-3}]"],
        "train: optimizer group 'hed.*' matches no parameter",
    ),
    "an optimizer with a closure": (
        {},
        ["train.optimizer.type=lbfgs"],
        "train.optimizer: LBFGS evaluates the loss several times in a step",
    ),
    "an optimizer of matrices": (
        {},
        ["train.optimizer.type=muon"],
        "train.optimizer: muon: Muon only supports 2D parameters",
    ),
    "a negative weight decay": (
        {},
        ["train.optimizer.weight_decay=-1"],
        "train.optimizer: adamw: Invalid weight_decay value: -1",
    ),
    "a teacher for a scheme that makes its own": (
        {},
        ["scheme=ema"],
        "scheme: Ema takes no teacher. Set teacher: null",
    ),
    "a scheme of texts for images": (
        {},
        ["scheme=on_policy"],
        "scheme: OnPolicy generates text after prompts",
    ),
    "the folder is the recipe's": (
        {},
        ["data={name: npz:one.npz, base: x}"],
        "data.base: unknown option",
    ),
    "a loss without a teacher": (
        {},
        ["teacher=null"],
        "objectives.kd: KD needs logits of the teacher, which outputs nothing",
    ),
    "nothing before": (
        {},
        ["stages=[{teacher: previous}]"],
        "stages.0.teacher.model: 'previous' is the network of the previous stage",
    ),
    "wrong in the second stage": (
        {},
        ["stages=[{}, {student: previous, objectives: {fitnet: }}]"],
        "stages.1.objectives.fitnet: FitNet needs features of the student",
    ),
    "other data in a stage": (
        {},
        ["stages=[{data: {name: npz:one.npz}}]"],
        "stages.0.data: ",
    ),
    "not to be had without the library": (
        {},
        ["student.model=timm:resnet1"],
        "student: timm has no model 'resnet1'. Did you mean resnet18",
    ),
    "no weights to be had": (
        {},
        ["teacher.pretrained=true"],
        "teacher: pretrained: only models of ",
    ),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code_of_mine.py").write_text(CODE)
    (tmp_path / "slip.py").write_text("def build(:\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "hollow" / "cat").mkdir(parents=True)
    (tmp_path / "broken.npz").write_bytes(b"PK no archive")
    (tmp_path / "other.safetensors").write_bytes(b"no weights")
    image = np.zeros((20, 8, 8), np.uint8)
    np.savez(tmp_path / "one.npz", image=image, label=np.zeros(20, np.int64))
    np.savez(
        tmp_path / "nan.npz", image=np.full((20, 8, 8), np.nan, np.float32), label=np.arange(20) % 2
    )
    colour = np.zeros((20, 3, 8, 8), np.float32)
    np.savez(tmp_path / "colour.npz", image=colour, label=np.arange(20) % 2)
    np.savez(tmp_path / "multi.npz", image=image, label=np.ones((20, 3), np.float32))
    return tmp_path


@pytest.mark.parametrize("command", ["run", "doctor"])
@pytest.mark.parametrize("case", CASES)
def test_is_one_error_with_its_place_and_leaves_nothing(
    command: str, case: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sections, changes, message = CASES[case]
    (here / "bad.yaml").write_text(yaml.safe_dump({**SMALL, **sections}))
    before = sorted(path for path in here.rglob("*") if "__pycache__" not in path.parts)
    with pytest.raises(SystemExit) as ended:
        main([command, "bad.yaml", *changes])
    out, err = capsys.readouterr()
    assert err.startswith(f"Error: {message}"), err
    assert err.count("\n") == 1
    assert (ended.value.code, out) == (2, "")
    assert sorted(path for path in here.rglob("*") if "__pycache__" not in path.parts) == before


def test_the_stages_are_tried_with_the_nets_that_they_will_have() -> None:
    experiment = Experiment.from_recipe(
        recipe(
            student={"model": "cnn", "options": {"width": 2}},
            stages=[
                {"student": {"model": "cnn", "options": {"width": 5}}},
                {"teacher": "previous", "objectives": {"fitnet": {}}},
            ],
        )
    )
    (_, first, _), (_, second, trained) = dry_run(experiment)
    assert first.student.model.stages[0][0].out_channels == 5
    assert second.teacher is not None
    assert second.teacher.net.model.stages[0][0].out_channels == 5
    assert second.student.model.stages[0][0].out_channels == 2
    assert trained is False


def test_labels_are_optional_if_no_loss_reads_them(here: Path) -> None:
    """Unlabelled samples are valid if no loss of the student needs labels."""
    label = np.array([-100] * 40 + [0, 1] * 10)
    split = np.array([0] * 40 + [1] * 10 + [2] * 10)
    np.savez(
        here / "few.npz",
        image=np.random.default_rng(0).random((60, 8, 8)),
        label=label,
        split=split,
        classes=["no", "yes"],
    )
    changes = ["baselines=[]", "objectives={kd: }", "teacher.is_trained=true", "data.batch_size=20"]
    assert (
        len(
            list(
                dry_run(
                    Experiment.from_recipe(
                        recipe(*changes, data={"name": "npz:few.npz"}, folder=str(here))
                    )
                )
            )
        )
        == 1
    )


def test_networks_stay_on_the_cpu() -> None:
    # A device without values stands for a GPU: an operation that mixes it with the CPU fails.
    changes = ("train.activation_checkpointing=true",)
    teachers: list[dict[str, Any]] = [{"model": "cnn"}, {"model": "cnn", "is_trained": True}]
    with default_device("meta"):
        for teacher in teachers:
            experiment = Experiment.from_recipe(recipe(*changes, teacher=teacher))
            for _, scheme, _ in dry_run(experiment):
                tensors = [*scheme.parameters(), *scheme.buffers()]
                assert {tensor.device.type for tensor in tensors} == {"cpu"}
