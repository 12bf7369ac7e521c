"""Models, losses and data of a user's folder, run through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

import instil
from instil.cli import main
from instil.experiment.experiment import Experiment
from instil.experiment.networks import build_network
from tests.experiment.small import SMALL, lines, recipe, result, run_of

Command = Callable[..., tuple[int, str, str]]

OWN = '''
import torch
from torch import nn
from instil.core import Card, Objective


def build(classes, channels, width=6):
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    )


class Gap(Objective):
    """The squared distance of the logits, ``power`` times.

    ``power``: how often.
    """

    card = Card("Gap", "https://example.org/gap", "None", 2026, source="logits")
    needs = {"student": (("logits",),), "teacher": (("logits",),)}

    def __init__(self, power: float = 1.0):
        super().__init__()
        self.power = power

    def forward(self, student, teacher, batch):
        return self.power * (student["logits"] - teacher["logits"]).square().mean(-1)
'''
HUGGING = """
from transformers import ViTConfig, ViTForImageClassification


def build(classes, channels, size):
    return ViTForImageClassification(ViTConfig(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=size,
        patch_size=4,
        num_channels=channels,
        num_labels=classes,
    ))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(here: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    def called(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(words))
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return called


def write(name: str = "mine.yaml", **sections: Any) -> str:
    Path(name).write_text(
        yaml.safe_dump({**SMALL, "seeds": [0], "baselines": ["alone"], **sections})
    )
    return name


def pictures(folder: str, size: int = 16, classes: str = "abc", each: int = 16) -> None:
    """Write images; each class is brighter than the class before."""
    generator = np.random.default_rng(0)
    for index, name in enumerate(classes):
        Path(folder, name).mkdir(parents=True)
        for picture in range(each):
            pixels = generator.integers(0, 60, (size, size + picture % 2, 3)) + 80 * index
            Image.fromarray(pixels.astype(np.uint8)).save(Path(folder, name, f"{picture}.png"))


def test_own_model_and_own_loss(command: Command, here: Path) -> None:
    Path("my_code.py").write_text(OWN)
    write(
        imports=["my_code"],
        student={"model": "my_code:build", "options": {"width": 3}},
        objectives={"cross_entropy": {}, "gap": {"power": 0.5}},
    )
    code, out, err = command("run", "mine.yaml", "--out", "out")
    assert (code, err) == (0, "")
    assert "distilled" in out
    assert any("student/gap" in line["losses"] for line in lines(here / "out"))
    assert result(here / "out")["objectives"]["gap"]["power"] == 0.5
    assert instil.load("out", trust_code=True).net.model[0].out_channels == 3
    os.chdir("/")
    assert command("report", str(here / "out"))[0] == 0, "the modules are found from anywhere"
    assert command("methods", "gap", "--json")[0] == 0


def test_a_folder_of_pictures_and_different_inputs_of_teacher_and_student(
    command: Command, here: Path
) -> None:
    pictures("pictures")
    write(
        data={
            "name": "folder:pictures",
            "size": 16,
            "batch_size": 8,
            "augment": {"crop": 2, "flip": True},
        },
        teacher={
            "model": "cnn",
            "options": {"width": 4},
            "input": {"size": 12, "mean": [0.5] * 3, "std": [0.2] * 3},
        },
        student={"model": "mlp", "options": {"width": 4}, "input": {"size": 8}},
        train={"epochs": 2},
    )
    code, _, err = command("run", "mine.yaml", "export=true", "--out", "out")
    assert (code, err) == (0, "")
    outcome = result(here / "out")
    assert outcome["classes"] == ["a", "b", "c"]
    assert outcome["shape"] == [3, 16, 16]
    assert outcome["cost"]["student"]["parameters"] == 3 * 8 * 8 * 4 + 4 + 4 * 3 + 3
    assert outcome["export"]["onnx"]["max_difference"] < 1e-4, "resizing is in the graph"


def test_a_broken_picture_is_one_error_also_from_a_worker_and_is_mended(
    command: Command, here: Path
) -> None:
    pictures("pictures")
    whole = Path("pictures/b/7.png").read_bytes()
    Path("pictures/b/7.png").write_bytes(whole[:20])
    write(data={"name": "folder:pictures", "size": 8, "batch_size": 8, "channels": 3})
    for workers in ("0", "1"):
        code, _, err = command(
            "run", "mine.yaml", f"data.workers={workers}", "--out", f"out{workers}"
        )
        assert code == 2
        assert err.count("\n") == 1
        assert "b/7.png cannot be read as a picture" in err
    Path("pictures/b/7.png").write_bytes(whole)
    resume = ["--resume", "out1"] if Path("out1").exists() else ["mine.yaml", "--out", "out1"]
    assert command("run", *resume)[0] == 0


@pytest.mark.parametrize("kind", ["multi", "binary"])
def test_several_labels_an_image_and_yes_or_no(kind: str, command: Command, here: Path) -> None:
    generator = np.random.default_rng(0)
    image = generator.random((120, 8, 8)).astype(np.float32)
    label = (
        np.stack([image[:, :4].mean((1, 2)), image[:, :, :4].mean((1, 2)), image.mean((1, 2))], 1)
        > 0.5
    ).astype(np.int64)
    np.savez("data.npz", image=image, label=label if kind == "multi" else label[:, :1])
    write(
        task={"name": "classification", "kind": kind},
        data={"name": "npz:data.npz", "num_labeled": 30, "batch_size": 20},
        objectives={"cross_entropy": {}, "kd": {"multi_label": True}},
        baselines=["alone", "pseudo_labels"],
    )
    code, out, err = command("run", "mine.yaml", "export=true", "--out", "out")
    assert (code, err) == (0, "")
    assert "pseudo-labels" in out
    outcome = result(here / "out")
    assert outcome["kind"] == kind
    assert ("map" in outcome["distilled"]) == (kind == "multi")
    student = instil.load("out")
    probability = student(torch.from_numpy(image[:5, None]))
    assert probability.shape == (5, 3 if kind == "multi" else 1)
    assert student.predict(torch.from_numpy(image[:2, None])) == [
        [name for name, p in zip(student.classes, row, strict=True) if p > 0.5]
        for row in probability[:2].tolist()
    ]


@pytest.mark.parametrize(
    "student",
    [
        {"model": "timm:resnet18", "options": {"in_chans": 1}},
        {"model": "torchvision:shufflenet_v2_x0_5"},
        {"model": "hugging:build"},
    ],
    ids=lambda student: student["model"],
)
def test_students_of_other_libraries(student: dict[str, Any], command: Command, here: Path) -> None:
    Path("hugging.py").write_text(HUGGING)
    generator = np.random.default_rng(0)
    np.savez(
        "data.npz",
        image=generator.integers(0, 255, (60, 32, 32)).astype(np.uint8),
        label=np.arange(60) % 3,
    )
    write(
        data={"name": "npz:data.npz", "batch_size": 20},
        student=student,
        baselines=[],
        objectives={"cross_entropy": {}, "kd": {}, "rkd": {}},
    )
    code, _, err = command("run", "mine.yaml", "train.epochs=1", "--out", "out")
    assert (code, err) == (0, "")
    assert np.isfinite(
        [value for line in lines(here / "out") for value in line["losses"].values()]
    ).all()
    probability = instil.load("out", trust_code=True)(torch.rand(3, 1, 32, 32))
    torch.testing.assert_close(probability.sum(1), torch.ones(3))


def test_half_precision_changes_the_training_and_little_else(tmp_path: Path) -> None:
    half, full = (
        run_of(recipe("seeds=[0]", f"train.precision={name}"), tmp_path / name)
        for name in ("bfloat16", "float32")
    )
    assert half["distilled"]["loss"]["mean"] != full["distilled"]["loss"]["mean"]
    assert half["distilled"]["loss"]["mean"] == pytest.approx(
        full["distilled"]["loss"]["mean"], rel=0.05
    )


@pytest.mark.slow
def test_compiled_gives_what_is_not_compiled(tmp_path: Path) -> None:
    changes = ["seeds=[0]", "baselines=[]"]
    compiled = run_of(recipe(*changes, "train.compile=true", "export=true"), tmp_path / "compiled")
    plain = run_of(recipe(*changes, "train.compile=false"), tmp_path / "plain")
    assert compiled["distilled"]["loss"]["mean"] == pytest.approx(
        plain["distilled"]["loss"]["mean"], rel=1e-4
    )
    assert compiled["export"]["onnx"]["max_difference"] < 1e-4


@pytest.mark.slow
def test_two_processes_give_the_accuracies_of_one(tmp_path: Path) -> None:
    """Torchrun cuts each batch into two; the results stay the same."""
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump(SMALL | {"seeds": [0], "data": {**SMALL["data"], "batch_size": 200}})
    )
    answers = []
    for name, words in (
        ("one", [sys.executable, "-m"]),
        ("two", [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m"]),
    ):
        environment = os.environ | {
            "INSTIL_CACHE": str(tmp_path / f"cache-{name}"),
            "OMP_NUM_THREADS": "1",
        }
        process = subprocess.run(
            [*words, "instil.cli", "run", "mine.yaml", "--out", name],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=environment,
        )
        assert process.returncode == 0, process.stderr
        assert process.stdout.count("Report: ") == 1
        answers.append(json.loads((tmp_path / name / "result.json").read_text()))
        records = [(line["arm"], line["epoch"]) for line in lines(tmp_path / name)]
        assert len(records) == len(set(records))
    for arm in ("alone", "label_smoothing", "pseudo_labels", "distilled"):
        one, two = (answer[arm]["loss"]["mean"] for answer in answers)
        assert two == pytest.approx(one, abs=2e-2 if arm == "pseudo_labels" else 1e-2), (
            "the teacher has BatchNorm, which sees half a batch each"
        )
        assert answers[1][arm]["accuracy"]["mean"] == pytest.approx(
            answers[0][arm]["accuracy"]["mean"], abs=0.02
        )
    one, two = (answer["alone"]["loss"]["mean"] for answer in answers)
    assert two == pytest.approx(one, rel=1e-5)


def test_an_index_is_the_row_of_its_image() -> None:
    """Name of the cached file of a teacher."""
    splits = Experiment.from_recipe(recipe()).splits
    for part in (splits.train, splits.validation, splits.test):
        assert torch.equal(part.index, torch.arange(len(part)))


def test_grey_pictures_for_a_colour_model(here: Path) -> None:
    experiment = Experiment.from_recipe(recipe(student={"model": "torchvision:shufflenet_v2_x0_5"}))
    net = build_network(experiment.recipe.student, experiment, "student").eval()
    image: Tensor = experiment.splits.test.image[:2]
    with torch.no_grad():
        assert net({"image": image})["logits"].shape == (2, 10)
