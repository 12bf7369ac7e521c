"""A user's task with ragged samples: its collation, augmentation, pseudo-labels and baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from instil.catalogue import plugins
from instil.experiment.experiment import Experiment
from instil.plan.doctor import doctor
from instil.recipe import RecipeError, build
from instil.recipe.sections import Recipe
from tests.experiment.small import run_of

MODULE = '''
import torch
from torch import nn

from instil.core import Card, UNLABELLED
from instil.data.item_data import ItemData
from instil.data.splits import Splits, splits
from instil.tasks.bases.classes import ClassTask


class Recordings(ItemData):
    noun = "recording"


def recordings(count: int = 120) -> Splits:
    """Signals of 3 to 12 values, whose mean is their class."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(count) % 3
    items = []
    for target in label.tolist():
        length = int(torch.randint(3, 13, (1,), generator=generator))
        items.append({"signal": target + 0.1 * torch.randn(length, generator=generator)})
    data = Recordings(items, label, ["low", "middle", "high"])
    return splits({"train": data}, 0.25, 0.25)


class Gain:
    """Scales signals by one plus a constant."""

    def __init__(self, gain: float = 0.0, seed: int = 0):
        self.gain = gain

    def __call__(self, batch):
        return batch | {"signal": batch["signal"] * (1 + self.gain)}


class MaskedMean(nn.Module):
    def __init__(self, classes: int, width: int = 8):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, width), nn.ReLU(), nn.Linear(width, classes))

    def forward(self, signal, mask):
        mean = (signal * mask).sum(1) / mask.sum(1)
        return self.layers(mean[:, None])


def net(classes: int, width: int = 8) -> nn.Module:
    return MaskedMean(classes, width)


def call(model, batch):
    return {"logits": model(batch["signal"], batch["mask"])}


class SignalClassification(ClassTask):
    card = Card("Classification of signals")
    title = "signal classification"
    names = ("signal", "mask", "label")
    inputs = ("signal", "mask")
    exports = False
    augmentation = Gain
    baselines = {"single": ("alone", "pseudo_labels")}
    call = staticmethod(call)

    def collate(self, items):
        signals = [item["signal"] for item in items]
        padded = nn.utils.rnn.pad_sequence(signals, batch_first=True, padding_value=1000.0)
        mask = nn.utils.rnn.pad_sequence([torch.ones_like(one) for one in signals], True)
        return {"signal": padded, "mask": mask}

    def pseudo_labels(self, outputs, label):
        confident = outputs["logits"].softmax(-1).max(-1)
        decisions = torch.where(confident.values > 0.4, confident.indices, UNLABELLED)
        return torch.where(label == UNLABELLED, decisions.to(label.device), label)
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(plugins, "imported", {})
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_signals.py").write_text(MODULE)
    return tmp_path


def ragged(folder: Path, **sections: Any) -> Recipe:
    whole: dict[str, Any] = {
        "folder": str(folder),
        "imports": ["my_signals"],
        "task": "signal_classification",
        "data": {"name": "recordings", "batch_size": 20, "num_labeled": 12},
        "teacher": {"model": "my_signals:net", "options": {"width": 32}},
        "student": {"model": "my_signals:net", "options": {"width": 24}},
        "objectives": {"cross_entropy": {}, "kd": {}},
        "train": {"epochs": 40, "optimizer": {"lr": 0.05}},
        "seeds": [0],
    }
    return build(whole | sections)


def test_a_task_pads_ragged_samples_in_training_and_evaluation(folder: Path) -> None:
    result = run_of(ragged(folder), folder / "run")
    assert {"teacher", "alone", "pseudo_labels", "distilled"} <= set(result)
    assert result["teacher"]["accuracy"]["mean"] > 0.9
    assert result["distilled"]["accuracy"]["mean"] > 0.9


def test_batches_are_as_long_as_their_longest_sample(folder: Path) -> None:
    data = {"name": "recordings", "batch_size": 20, "augment": {"gain": 1.0}}
    experiment = Experiment.from_recipe(ragged(folder, data=data))
    train = experiment.splits.train
    lengths = [len(item["signal"]) for item in train.items]
    plain = next(iter(experiment.loader(train, shuffle=False)))
    assert plain["mask"].sum(1).tolist() == lengths
    for batch in experiment.loader(train):
        expected = [lengths[int(index)] for index in batch["index"]]
        assert batch["signal"].shape == (len(expected), max(expected))
        first = train.items[int(batch["index"][0])]["signal"]
        assert torch.equal(batch["signal"][0, : len(first)], 2 * first)


def test_worker_processes_collate_too(folder: Path) -> None:
    data = {"name": "recordings", "batch_size": 20, "workers": 1}
    experiment = Experiment.from_recipe(ragged(folder, data=data))
    train = experiment.splits.train
    (batch,) = experiment.loader(train, shuffle=False)
    assert torch.equal(batch["mask"], train.__getitems__(torch.arange(len(train)))["mask"])


def test_ragged_samples_without_collation_are_an_error_before_training(folder: Path) -> None:
    text = MODULE.replace("def collate", "def join")
    (folder / "my_signals.py").write_text(text.replace('("signal", "mask")', '("signal",)'))
    with pytest.raises(RecipeError, match=r"signal: samples of the shapes .*Define Task\.collate"):
        doctor(ragged(folder))
