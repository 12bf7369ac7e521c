"""A modality of a user's module: its source, label kind, task and augmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from instil.experiment.experiment import Experiment
from instil.recipe import RecipeError, build
from instil.recipe.sections import Recipe
from tests.experiment.small import run_of

MODULE = '''
import torch
from torch import nn
from instil.core import Card
from instil.data.images import ArrayData
from instil.data.label_kinds import UnlabelledData
from instil.data.splits import Splits, splits
from instil.functional.keyed_random import keyed_uniform
from instil.tasks.bases.task import Task


class SpecAugment:
    """Silences one random frequency band and shifts no time."""

    def __init__(self, bands: int = 0, seed: int = 0):
        self.bands = bands
        self.seed = seed

    def __call__(self, batch):
        moment = {"index": batch["index"] + (batch["view"] << 40), "seed": self.seed}
        first = (keyed_uniform(moment, 1, "user.bands")[:, 0] * 8).long()
        band = torch.arange(8)
        is_silent = (band >= first[:, None]) & (band < first[:, None] + self.bands)
        return batch | {"audio": batch["audio"].masked_fill(is_silent[:, None], 0.0)}


class Spectrograms(UnlabelledData):
    noun = "recording"
    augmentation = SpecAugment


def sounds(count: int = 80) -> Splits:
    audio = torch.randn(count, 6, 8, generator=torch.Generator().manual_seed(0)).abs() + 1
    return splits({"train": Spectrograms({"audio": audio}, {"bands": 8})}, 0.2, 0.2)


def plain_sounds() -> Splits:
    audio = torch.ones(60, 6, 8)
    return splits({"train": UnlabelledData({"audio": audio}, {"bands": 8})}, 0.2, 0.2)


def one_class() -> Splits:
    images = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return splits({"train": ArrayData(images, torch.zeros(60), ["thing"])}, 0.2, 0.2)


def encoder(bands: int, width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(6 * bands, width), nn.Tanh(), nn.Linear(width, 4))


def call(model, batch):
    return {"logits": model(batch["audio"])}


class SoundEmbedding(Task):
    card = Card("Embedding of sounds")
    title = "sound embedding"
    names = ("audio",)
    inputs = ("audio",)
    kinds = ("none",)
    label_objectives = ()
    headline = "distance"
    higher_is_better = False
    baselines = {}
    exports = False
    call = staticmethod(call)

    def __init__(self, kind: str = "none"):
        super().__init__(kind)

    def evaluate(self, net, batches, teacher=None):
        total, count = 0.0, 0
        for _, outputs, of_teacher in self.iter_outputs(net, batches, teacher):
            other = of_teacher.get("logits", outputs["logits"])
            total += float((outputs["logits"] - other).square().sum())
            count += len(other)
        return {"distance": total / count}, {}
'''


def recipe_of(folder: Path, **sections: Any) -> Recipe:
    (folder / "my_sounds.py").write_text(MODULE)
    whole: dict[str, Any] = {
        "folder": str(folder),
        "imports": ["my_sounds"],
        "task": "sound_embedding",
        "data": {"name": "sounds", "augment": {"bands": 3}},
        "teacher": {"model": "my_sounds:encoder", "options": {"width": 32}, "is_trained": True},
        "student": "my_sounds:encoder",
        "objectives": {"logit_mse": None},
        "baselines": [],
        "seeds": [0],
        "export": False,
        "train": {"epochs": 1},
    }
    return build(whole | sections)


def test_a_run_distils_unlabelled_recordings_with_their_own_augmentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    short = run_of(recipe_of(tmp_path), tmp_path / "short")
    long = run_of(recipe_of(tmp_path, train={"epochs": 40}), tmp_path / "long")
    assert long["distilled"]["distance"]["mean"] < 0.8 * short["distilled"]["distance"]["mean"]


def test_the_augmentation_changes_training_batches_only(tmp_path: Path) -> None:
    experiment = Experiment.from_recipe(recipe_of(tmp_path))
    train = experiment.splits.train
    (batch,) = experiment.loader(train, seed=0)
    is_silent = (batch["audio"] == 0).all(1)
    assert 1 <= is_silent.sum(1).min() <= is_silent.sum(1).max() == 3
    (again,) = experiment.loader(train, seed=0)
    assert torch.equal(batch["audio"], again["audio"])
    (other_seed,) = experiment.loader(train, seed=1)
    silent_bands = {int(i): row.tolist() for i, row in zip(batch["index"], is_silent, strict=True)}
    others = (other_seed["audio"] == 0).all(1)
    assert any(
        silent_bands[int(i)] != row.tolist()
        for i, row in zip(other_seed["index"], others, strict=True)
    )
    (plain,) = experiment.loader(train, shuffle=False)
    assert (plain["audio"] != 0).all()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"data": {"name": "sounds", "augment": {"band": 3}}},
            r"data\.augment\.band: unknown option\. SpecAugment has bands.*Did you mean bands",
        ),
        ({"data": {"name": "sounds", "augment": {"seed": 3}}}, r"data\.augment\.seed: unknown"),
        (
            {"data": {"name": "sounds", "augment": {"bands": "x"}}},
            r"data\.augment\.bands: a whole number was expected",
        ),
        ({"data": {"name": "sounds", "augment": {"crop": 1}}}, r"data\.augment\.crop: unknown"),
        ({"data": {"name": "sounds", "augment": {"mixup": True}}}, "'sounds' has other samples"),
        ({"data": {"name": "plain_sounds", "augment": {"bands": 1}}}, "has other samples"),
        (
            {"data": "digits", "task": "classification", "student": "mlp", "teacher": "mlp"}
            | {"data": {"name": "digits", "augment": {"crops": 1}}},
            r"data\.augment\.crops: unknown option\. Augmentation has crop, flip, mixup, "
            r"partner, views\. Did you mean crop",
        ),
        ({"data": {"name": "sounds", "num_labeled": 5}}, "num_labeled: 5 of 0 labelled recordings"),
    ],
)
def test_wrong_options_are_errors_before_training(
    tmp_path: Path, sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        Experiment.from_recipe(recipe_of(tmp_path, **sections)).train_data(0)


def test_a_task_may_bring_the_augmentation(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, data={"name": "plain_sounds", "augment": {"bands": 2}})
    import my_sounds  # type: ignore[import-not-found]

    my_sounds.SoundEmbedding.augmentation = my_sounds.SpecAugment
    experiment = Experiment.from_recipe(recipe)
    (batch,) = experiment.loader(experiment.splits.train)
    assert (batch["audio"] == 0).any()


def test_a_label_loss_is_refused_for_data_without_labels(tmp_path: Path) -> None:
    experiment = Experiment.from_recipe(recipe_of(tmp_path))
    from instil.objectives.labels.cross_entropy import CrossEntropy
    from instil.objectives.logits.logit_mse import LogitMSE

    experiment.task.check({"logit_mse": LogitMSE()})
    with pytest.raises(ValueError, match="undefined for unlabelled sound embedding"):
        experiment.task.check({"cross_entropy": CrossEntropy()})


def test_one_class_is_enough_where_nothing_learns_labels(tmp_path: Path) -> None:
    sections: dict[str, Any] = {
        "task": "classification",
        "data": "one_class",
        "student": "mlp",
        "teacher": {"model": "cnn", "is_trained": True},
        "objectives": {"fitnet": None},
    }
    assert Experiment.from_recipe(recipe_of(tmp_path, **sections)).splits.classes == ("thing",)
    for change in (
        {"objectives": {"cross_entropy": None}},
        {"baselines": ["alone"]},
        {"teacher": "cnn"},
    ):
        with pytest.raises(RecipeError, match=r"all images are of one class \(thing\)"):
            Experiment.from_recipe(recipe_of(tmp_path, **sections | change))
