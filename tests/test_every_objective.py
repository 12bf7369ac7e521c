"""Every objective trains on a packaged recipe: its loss falls, with a label loss or alone.

Nothing is listed by hand. Recipe, data, teachers and sizes follow from card, needs and options of
an objective, so a new file is covered automatically.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from instil import catalogue
from instil import recipe as recipes
from instil.data.sources.digits import digits
from instil.plan.run import run
from instil.testing.recipes import (
    THREE_TEACHERS,
    learns_from_model_loss_role,
    needs_members,
    needs_several_labels,
    own_recipe,
    small_options,
    task_recipe,
)
from tests.recipe_sizes import small_data

SHORT = ["teacher_train.epochs=5", "seeds=[0]", "baselines=[]", "export=false"]
EPOCHS = 4
EPOCHS_OF_A_GRAPH = 10
"""A graph is one batch, so an epoch is one step."""
ALL_LABELS = ("two_dpass",)
"""Objectives with a classifier of their own, which a few labels change more than a few epochs teach
the student: their loss first rises."""


def packaged_recipe(name: str) -> str:
    """Recipe of the objective's own name, or else of the first task on its card that has one."""
    recipe = own_recipe(name) or task_recipe(name)
    assert recipe, f"{name}: no task on its card has a recipe"
    return recipe


def overrides(name: str, recipe: str, folder: Path) -> list[str]:
    """Changes of the recipe that follow from the objective's card, needs and options."""
    configs = recipes.load(recipe).objectives
    changes = [] if name in configs else [f"objectives.{name}={{}}"]
    if name in configs and not isinstance(configs[name].weight, float):
        changes.append(f"objectives.{name}.weight=1")  # a rising weight would hide a falling loss
    if name in ALL_LABELS:
        changes.append("data.num_labeled=null")
    for option, value in small_options(name).items():
        changes.append(f"objectives.{name}.{option}={value}")
    if needs_members(name) and not own_recipe(name):
        changes.append(THREE_TEACHERS)
    if learns_from_model_loss_role(name):
        changes += returns_loss(folder)
    if "joint_logits" in catalogue.find("objective", name).needs["student"][0]:
        changes += returns_lattice(folder)
    if needs_several_labels(name):
        several_labels(folder)
        changes += [f"data={{name: 'npz:{folder}/several.npz'}}", "task.kind=multi"]
        changes.append("objectives.kd.multi_label=true")
    return changes


SUPERVISED = """
from torch import nn


class Supervised(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layer = nn.Linear(64, classes)

    def forward(self, image):
        logits = self.layer(image.flatten(1))
        return {"logits": logits, "loss": logits.square().mean(1)}


def supervised(classes):
    return Supervised(classes)
"""
"""A student that returns a loss of its own, the size of its logits, for each image."""


def returns_loss(folder: Path) -> list[str]:
    """Changes of a recipe whose student returns a loss."""
    (folder / "supervised.py").write_text(SUPERVISED)
    return ["student={model: 'supervised:supervised'}", "imports=[supervised]"]


TRANSDUCER = """
import torch
from torch import nn

from instil.networks.speech_recognizer import speech_recognizer


class Transducer(nn.Module):
    def __init__(self, classes, features):
        super().__init__()
        self.encoder = speech_recognizer(classes, features, 8, 2, gru=0)
        self.symbols = nn.Embedding(classes, classes)

    def forward(self, audio, audio_length, label):
        outputs = self.encoder(audio, audio_length)
        start = torch.zeros_like(label[:, :1])
        history = self.symbols(torch.cat([start, label.clamp_min(0)], 1))
        lattice = outputs["logits"][:, :, None] + history[:, None]
        return {**outputs, "joint_logits": lattice}


def transducer(classes, features):
    return Transducer(classes, features)
"""
"""A network that returns the logits of the lattice of frames and symbols."""


def returns_lattice(folder: Path) -> list[str]:
    """Changes of a recipe whose networks are transducers."""
    (folder / "transducer.py").write_text(TRANSDUCER)
    networks = [f"{side}={{model: 'transducer:transducer'}}" for side in ("teacher", "student")]
    return [*networks, "imports=[transducer]"]


def several_labels(folder: Path) -> None:
    """Write digits with two binary labels each: even, and below five."""
    train = digits().train
    label = torch.stack([train.label % 2 == 0, train.label < 5], 1).numpy()
    image = torch.cat([train.images(torch.arange(len(train)))]).numpy()
    np.savez(folder / "several.npz", image=image, label=label)


def train(recipe: str, changes: list[str], name: str, folder: Path) -> list[float]:
    """Run a recipe and return the losses of one objective of the student."""
    path = run(recipes.load(recipe, changes), folder, None, Console(quiet=True))
    assert json.loads((path / "result.json").read_text())["status"] == "complete"
    losses = []
    for line in (path / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["arm"] == "distilled" and f"student/{name}" in record["losses"]:
            losses.append(record["losses"][f"student/{name}"])
    assert len(losses) >= 2
    return losses


def falls(losses: list[float]) -> bool:
    half = len(losses) // 2
    return sum(losses[-half:]) < sum(losses[:half])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of trained teachers, so that each is trained once."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.slow
@pytest.mark.parametrize("name", catalogue.files("objective"))
def test_trains(name: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(cache))
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe = packaged_recipe(name)
    task = recipes.load(recipe).task.name
    is_graph = "edge_index" in catalogue.find("task", task).inputs
    epochs = EPOCHS_OF_A_GRAPH if is_graph else EPOCHS
    changes = [*small_data(recipe), *overrides(name, recipe, tmp_path)]
    changes += [*SHORT, f"train.epochs={epochs}"]
    losses = train(recipe, changes, name, tmp_path / "beside")
    scheme = catalogue.find("scheme", recipes.load(recipe).scheme.type)
    if scheme.card.source == "self":
        return  # the teacher moves with the student, and the loss need not fall
    if not falls(losses):
        # Some losses begin near zero for an untrained student and rise beside a label loss.
        others = [key for key in recipes.load(recipe, changes).objectives if key != name]
        changes += [f"objectives.{key}=null" for key in others]
        losses = train(recipe, changes, name, tmp_path / "alone")
    assert falls(losses), f"the loss does not fall: {losses}"
